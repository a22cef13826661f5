"""What MLflow cannot take now waits in the outbox and is recorded once, later."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dav2.params import Params
from dav2.tracking import outbox, patience, registry, store
from dav2.tracking.store import UnavailableError
from tests.tracking import builders
from tests.tracking.killing import killed


@pytest.fixture
def waiting(project: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose teacher was trained while the MLflow server was down; the local store is there again."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    told = outbox.record("teacher", project, params)
    assert "does not answer" in told["why"] and outbox.waiting(project) == [Path(told["waiting"])]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    return project


def deliver(root: Path) -> list[str]:
    return outbox.deliver(root, store.client(root))


def recorded(project: Path) -> tuple[int, int, list[str], int]:
    """Number of runs, of points of the loss, status of logged models, and models that runs name as their outputs."""
    api = store.client(project)
    found = api.search_runs([store.experiment(api, project)])
    points = sum(len(api.get_metric_history(run.info.run_id, "loss")) for run in found)
    models = api.search_logged_models([store.experiment(api, project)])
    outputs = sum(len(api.get_run(run.info.run_id).outputs.model_outputs) for run in found)
    return len(found), points, [str(model.status) for model in models], outputs


def test_a_recording_waits_and_is_delivered_once(waiting: Path, params: Params) -> None:
    api = store.client(waiting)
    (line,) = outbox.deliver(waiting, api)
    assert line.startswith("recorded teacher, which had waited")
    assert recorded(waiting) == (1, 200, ["READY"] * 2, 2)
    assert outbox.deliver(waiting, api) == [] and not list((waiting / ".dav2/outbox").iterdir())
    assert "run_id" in outbox.record("teacher", waiting, params)
    assert recorded(waiting) == (1, 200, ["READY"] * 2, 2)


def test_what_waits_is_what_was_trained_whatever_is_trained_next(waiting: Path, params: Params) -> None:
    before = builders.weights_digest(waiting / "artifacts/models/teacher")
    shutil.rmtree(waiting / "artifacts/training/teacher")
    builders.write_run(waiting, params, "teacher", seed=77)
    api = store.client(waiting)
    outbox.deliver(waiting, api)
    (run,) = api.search_runs([store.experiment(api, waiting)])
    assert run.data.tags["dav2.weights_sha256"] == before
    models = api.search_logged_models([store.experiment(api, waiting)])
    assert {model.tags["dav2.weights_sha256"] for model in models} == {before}


def test_a_delivery_killed_before_any_write_makes_one_run(waiting: Path, tmp_path: Path) -> None:
    for write in itertools.count():
        root = tmp_path / f"kill-{write}"
        shutil.copytree(waiting, root, symlinks=True)
        done = not killed(partial(deliver, root), write)
        outbox.deliver(root, store.client(root))
        assert recorded(root) == (1, 200, ["READY"] * 2, 2)
        shutil.rmtree(root)
        if done:
            break
    assert write > 10


def test_an_entry_that_cannot_be_read_is_named_and_stays(waiting: Path) -> None:
    (entry,) = outbox.waiting(waiting)
    (entry / outbox.LINEAGE).write_text("{")
    (line,) = outbox.deliver(waiting, store.client(waiting))
    assert str(entry) in line and "not a lineage document" in line
    assert outbox.waiting(waiting) == [entry]


@pytest.mark.parametrize("damage", ["not a database", "malformed"])
def test_a_damaged_database_is_one_line_with_the_way_out(
    project: Path, params: Params, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = project / ".dav2/mlflow.db"
    content = bytearray(path.read_bytes())
    if damage == "malformed":
        content[100:40_000] = b"\xff" * 39_900
    path.write_bytes(bytes(content) if damage == "malformed" else b"these are no pages" * 400)
    capfd.readouterr()
    told = outbox.record("teacher", project, params)
    assert f"the MLflow database {path} is damaged" in told["why"] and f"mv {path}" in told["why"]
    assert "\n" not in told["why"]
    with pytest.raises(UnavailableError, match="is damaged"):
        registry.register("teacher", project, params, builders.scores(project, "teacher", 0.8))
    assert "Traceback" not in "".join(capfd.readouterr())
    path.rename(f"{path}.damaged")
    command = [sys.executable, "-m", "dav2.cli", "models"]  # MLflow keeps a database that it has opened for good.
    shown = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert shown.stderr.startswith("recorded teacher") and not outbox.waiting(project)


@pytest.fixture
def small(project: Path) -> Iterator[Path]:
    """A project whose MLflow files lie on a disk of their own that has no room for a model."""
    files = project / ".dav2/mlflow"
    files.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", files], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that are not given here")
    yield project
    subprocess.run(["umount", files], check=True)


def test_a_full_disk_is_named_with_what_is_needed_and_the_recording_waits(small: Path, params: Params) -> None:
    told = outbox.record("teacher", small, params)
    assert "disk is full" in told["why"] and str(small / ".dav2/mlflow") in told["why"] and " MB for" in told["why"]
    with pytest.raises(UnavailableError, match=r"disk is full: .*\.dav2/mlflow.* MB for dav2-teacher"):
        registry.register("teacher", small, params, builders.scores(small, "teacher", 0.8))
    subprocess.run(["mount", "-o", "remount,size=64m", small / ".dav2/mlflow"], check=True)
    assert registry.register("teacher", small, params, builders.scores(small, "teacher", 0.8)).version == "1"
    (line,) = deliver(small)
    assert line.startswith("recorded teacher")
    assert set(recorded(small)[2]) == {"READY"} and recorded(small)[0] == 1
