"""Launchers: events as they happen, errors that say why, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from dav2 import layout
from dav2.data import storage
from dav2.data.store.manifest import point
from dav2.documents import EvaluationLine, StepLine
from dav2.training import checkpoints
from dav2.training.errors import Interrupted, TrainingError
from dav2.training.journal import METRICS, Line, read_run
from dav2.training.launch import launch
from tests.data.conftest import bucket, s3_server  # noqa: F401
from tests.training.processes import read_lines
from tests.training.world import COMMON, make_project

RUN = "teacher"


def ranks_of(root: Path) -> list[psutil.Process]:
    """Processes that train below ``root``, wherever they are in the process tree."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "dav2.families.rank" in line and str(root) in line:
            found.append(process)
    return found


def test_a_dead_rank_ends_the_run_and_the_next_launch_goes_on_with_another_number(tmp_path: Path) -> None:
    # Long enough that the run is still under way when its rank has been found.
    rules = {"every_steps": 50, "evaluate_every": 200, "evaluate_frames": 4}
    teacher = {**COMMON, "sources": ["rooms"], "steps": 200, "checkpoint": rules}
    params = make_project(tmp_path, compute={"world_size": 2}, teacher=teacher)
    seen: list[Line] = []

    def kill_one(event: Line) -> None:
        seen.append(event)
        if event.step == 60 and isinstance(event, StepLine):
            next(p for p in ranks_of(tmp_path) if p.environ().get("RANK") == "1").kill()

    with pytest.raises(TrainingError, match="training teacher failed with status"):
        launch(RUN, params, tmp_path, kill_one)
    assert not ranks_of(tmp_path)
    assert [event.step for event in seen if isinstance(event, StepLine)][:3] == [1, 2, 3]

    params.write_text(params.read_text().replace("world_size: 2", "world_size: 1"))
    later: list[Line] = []
    model = launch(RUN, params, tmp_path, later.append)
    assert model == layout.model(tmp_path, RUN)
    assert later[0].step % 50 == 1 and later[0].step > 50 and later[-1].step == 200
    assert any(isinstance(event, EvaluationLine) for event in later)


def test_two_ranks_train_from_a_bucket_as_they_do_from_disk(
    tmp_path: Path,
    bucket: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ends = []
    for name in ("disk", "bucket"):
        params = make_project(tmp_path / name, compute={"world_size": 2})
        shards = params.parent / "artifacts/shards/synthetic/rooms"
        for shard in shards.glob("*.tar") if name == "bucket" else ():
            storage.write(f"{bucket}/rooms/{shard.name}", shard.read_bytes())
            shard.unlink()
            point(shards, f"{bucket}/rooms")
        ends.append((launch(RUN, params, params.parent) / "model.safetensors").read_bytes())
    assert ends[0] == ends[1]
    # What they had read ahead is gone with them.
    assert not list(tmp_path.glob("dav2-read-ahead-*"))


def test_a_launcher_that_is_killed_takes_its_rank_with_it_after_a_checkpoint(tmp_path: Path) -> None:
    make_project(tmp_path)
    program = "import sys; from pathlib import Path; from dav2.training.launch import launch; "
    program += (
        "root = Path(sys.argv[1]); launch('teacher', root / 'params.yaml', root, lambda e: print('event', flush=True))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    assert launcher.stdout.readline() == "event\n"
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 400
    while ranks_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not ranks_of(tmp_path)
    folder = layout.training(tmp_path, RUN)
    newest = checkpoints.newest(folder / "checkpoints")
    assert newest is not None
    assert checkpoints.step_of(newest) == read_lines(folder / METRICS)[-1]["step"]


def test_an_agent_that_is_killed_alone_takes_its_ranks_with_it_after_a_checkpoint(tmp_path: Path) -> None:
    rules = {"every_steps": 400, "evaluate_every": 400, "evaluate_frames": 4}
    teacher = {**COMMON, "sources": ["rooms"], "steps": 400, "checkpoint": rules}
    params = make_project(tmp_path, compute={"world_size": 2}, teacher=teacher)

    def kill_agent(event: Line) -> None:
        if event.step == 20:
            agents = {rank.parent() for rank in ranks_of(tmp_path) if "RANK" in rank.environ()}
            assert len(agents) == 1
            agents.pop().kill()

    with pytest.raises(Interrupted, match="the same command goes on from there"):
        launch(RUN, params, tmp_path, kill_agent)
    assert not ranks_of(tmp_path)
    folder = layout.training(tmp_path, RUN)
    newest = checkpoints.newest(folder / "checkpoints")
    assert newest is not None
    assert 20 <= checkpoints.step_of(newest) == read_lines(folder / METRICS)[-1]["step"] < 400


def test_what_a_rank_says_when_it_fails_is_in_the_error(tmp_path: Path) -> None:
    params = make_project(tmp_path, compute={"deepspeed": "infra/deepspeed/absent.json"})
    with pytest.raises(TrainingError, match=r"compute\.deepspeed: .*absent\.json does not exist"):
        launch(RUN, params, tmp_path)


def test_ray_places_two_ranks_on_two_nodes(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    params = make_project(tmp_path, compute={"world_size": 2, "launcher": "ray"})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    events: list[Line] = []
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        model = launch(RUN, params, tmp_path, events.append)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [event.step for event in events if isinstance(event, StepLine)] == [1, 2, 3, 4, 5, 6]
    assert model == layout.model(tmp_path, RUN) and (model / "model.safetensors").exists()
    assert read_run(layout.training(tmp_path, RUN)).world == 2
