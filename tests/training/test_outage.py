"""Training and evaluation from a bucket whose server, SeaweedFS, stops and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import s3fs

from dav2 import layout
from dav2.data import storage
from dav2.data.store.manifest import point
from dav2.documents import StepLine
from dav2.evaluation.evaluate import EvaluationError, evaluate_model
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.params import load
from dav2.training.errors import TrainingError
from dav2.training.journal import Line
from dav2.training.launch import launch
from tests.data.conftest import _use
from tests.data.outage import WEED, SeaweedServer
from tests.training.world import COMMON, make_project

RUN = "teacher"
STEPS = 12
pytestmark = pytest.mark.skipif(WEED is None, reason="needs SeaweedFS: the extra 'team'")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with SeaweedServer(tmp_path_factory.mktemp("store") / "weed") as started:
        yield started


@pytest.fixture
def store(server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> str:
    _use(monkeypatch, server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # Others ask again and wait, too; ours are enough here.
    name = f"bucket-{uuid4().hex[:12]}"
    s3fs.S3FileSystem().mkdir(name)
    return f"s3://{name}"


def project(root: Path, store: str | None) -> Path:
    """A project that reads a frame whenever it needs it, its shards in the store where there is one."""
    rules = {"every_steps": 4, "evaluate_every": 4, "evaluate_frames": 4}
    params = make_project(root, teacher={**COMMON, "sources": ["rooms"], "steps": STEPS, "checkpoint": rules})
    if store is not None:
        for place in ("synthetic/rooms", "benchmark/da2k"):
            shards = root / "artifacts/shards" / place
            for shard in shards.glob("*.tar"):
                storage.write(f"{store}/{place}/{shard.name}", shard.read_bytes())
                shard.unlink()
            point(shards, f"{store}/{place}")
    return params


def test_a_run_ends_in_one_line_and_goes_on_to_the_same_bytes(
    server: SeaweedServer, store: str, tmp_path: Path
) -> None:
    there = project(tmp_path / "disk", None)
    expected = (launch(RUN, there, there.parent) / "model.safetensors").read_bytes()
    params = project(tmp_path / "bucket", store)
    seen: list[int] = []

    def stop_once(line: Line) -> None:
        if isinstance(line, StepLine):
            seen.append(line.step)
        if line.step == 5:
            server.stop()

    with pytest.raises(TrainingError) as failed:
        launch(RUN, params, params.parent, stop_once)
    assert "\n" not in str(failed.value) and store in str(failed.value)
    assert 5 <= max(seen) < STEPS
    server.come_back()
    s3fs.S3FileSystem.clear_instance_cache()
    later: list[int] = []
    model = launch(RUN, params, params.parent, lambda line: later.append(line.step))
    assert later[0] == 5, "it goes on from its checkpoint"
    assert (model / "model.safetensors").read_bytes() == expected


def test_an_evaluation_ends_in_one_line_and_scores_no_frame_as_unreadable(
    server: SeaweedServer, store: str, tmp_path: Path
) -> None:
    params = load(project(tmp_path, store))
    save_directory(build("vitn"), layout.model(tmp_path, RUN))
    whole = evaluate_model(RUN, params, tmp_path)
    layout.scores(tmp_path, RUN).unlink()

    server.stop()
    with pytest.raises(EvaluationError) as failed:
        evaluate_model(RUN, params, tmp_path)
    assert "\n" not in str(failed.value) and store in str(failed.value)
    assert not layout.scores(tmp_path, RUN).exists()
    server.come_back()
    s3fs.S3FileSystem.clear_instance_cache()
    assert evaluate_model(RUN, params, tmp_path).da2k == whole.da2k
