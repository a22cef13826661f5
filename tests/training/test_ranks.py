"""What ranks exchange and decide together: on a device that is no processor, and when they see different things."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dav2 import families, layout, machine
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.params import load
from dav2.training import checkpoints, train
from dav2.training.engine import Update
from dav2.training.errors import TrainingError
from dav2.training.journal import EVALUATIONS, METRICS, read_run
from dav2.training.ranks import Ranks, from_environment
from dav2.training.recipes import build_recipe
from dav2.training.trainer import Trainer
from dav2.training.validation import Validator
from tests.training import far_device, processes
from tests.training.processes import read_lines, train_rank
from tests.training.world import make_project

RUN = "teacher"


def logs(root: Path) -> list[str]:
    return [(root / f"rank-{rank}.log").read_text() for rank in range(2)]


@contextmanager
def far_ranks():
    """This process as a rank on the far device, in a group that knows no other."""
    device = far_device.set_up()
    dist.init_process_group(far_device.GROUP)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), dist.get_rank(), device)
    finally:
        dist.destroy_process_group()


def exchange(params: Path, run: str) -> None:
    with far_ranks() as ranks:
        own = torch.tensor([1.0, 2.0**-40], dtype=torch.float64) * (ranks.rank + 1)
        found = {
            "sum": ranks.sum(own).tolist(),
            "own": own.tolist(),
            "sum of theirs": ranks.sum(torch.tensor([7], device=ranks.device)).tolist(),
            "gather": ranks.gather(["x"] * ranks.rank),
            "share": ranks.share({"from": ranks.rank}),
        }
        ranks.wait()
        with pytest.raises(RuntimeError, match="device type cpu"):
            dist.all_reduce(torch.ones(1))
        (params.parent / f"{ranks.rank}.json").write_text(json.dumps(found))


def test_whatever_ranks_exchange_goes_through_their_device(tmp_path: Path) -> None:
    processes.run_to_end(tmp_path / "params.yaml", RUN, 2, exchange)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {
            "sum": [3.0, 3 * 2.0**-40], "own": [rank + 1.0, (rank + 1) * 2.0**-40], "sum of theirs": [14],
            "gather": [[], ["x"]], "share": {"from": 0},
        }  # fmt: skip


class FlatTask(RelativeTask):
    """A task whose losses lie on the far device; its model, which is not what is looked at here, stays near."""

    def forward(self, image: torch.Tensor, **_: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": image.mean().abs()}

    def predict(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image.mean(dim=1), image


class UntrainedEngine:
    """In place of DeepSpeed, which knows no far device: nothing is learnt, and every third update is not finite."""

    stage = 0
    parameter_count = 1

    def __init__(self, task: Any, ranks: Ranks) -> None:
        self.task, self.ranks, self.updates = task, ranks, 0

    def set_learning_rates(self, factor: float) -> dict[str, float]:
        return {"lr_encoder": factor}

    def update(self, batches: Any) -> Update:
        self.updates += 1
        good = self.updates % 3 != 0
        return Update(
            {"loss": torch.tensor(float(self.ranks.rank))}, 1.0, good, [] if good else [f"frame{self.ranks.rank}"]
        )

    def whole_model(self) -> Any:
        return self.task.model

    def save(self, folder: Path, tag: str) -> None:
        (folder / tag).mkdir(exist_ok=True)
        (folder / tag / f"{self.ranks.rank}").write_text("state")


def loop_far_away(params: Path, run: str) -> None:
    with far_ranks() as ranks:
        settings, root = load(params), params.parent
        recipe = build_recipe(settings, run, root, families.get("depth_anything"))
        layout.training(root, run).mkdir(parents=True, exist_ok=True)
        validator = Validator(recipe, 4, root / settings.shards("da2k"), ranks)
        engine: Any = UntrainedEngine(FlatTask(build("vitn"), recipe.settings.loss, "fp32"), ranks)
        Trainer(recipe, engine, ranks, layout.training(root, run), validator, "", 0).run()


def test_the_whole_loop_needs_no_backend_for_the_processor(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN, 2, loop_far_away)
    folder = layout.training(tmp_path, RUN)
    lines, evaluations = (read_lines(folder / name) for name in (METRICS, EVALUATIONS))
    assert [line["loss"] for line in lines] == [0.5] * 6
    assert [line.get("suspects") for line in lines] == [None, None, ["frame0", "frame1"]] * 2
    assert [line["step"] for line in evaluations] == [2, 3, 4, 6] and all(
        line["da2k_pairs"] == 24 for line in evaluations
    )
    last = folder / "checkpoints" / "step-000006"
    assert checkpoints.problem(last) is None
    assert sorted(path.name for path in (last / "engine").iterdir()) == ["0", "1"]


def look_a_moment_earlier(rank: str) -> None:
    """On ``rank`` the last checkpoint is not there yet when it is looked for first."""
    real, looked = checkpoints.problem, False

    def problem(folder: Path) -> str | None:
        nonlocal looked
        early, looked = not looked and os.environ["RANK"] == rank, True
        return "manifest.json is missing" if early else real(folder)

    checkpoints.problem = problem


def second_looks_earlier(params: Path, run: str) -> None:
    look_a_moment_earlier("1")
    train_rank(params, run)


def first_looks_earlier(params: Path, run: str) -> None:
    look_a_moment_earlier("0")
    train_rank(params, run)


def test_the_first_rank_decides_whether_the_run_is_finished(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN, 2)
    metrics, model = layout.training(tmp_path, RUN) / METRICS, layout.model(tmp_path, RUN) / "model.safetensors"
    lines, weights = read_lines(metrics), model.read_bytes()
    for looks in (second_looks_earlier, first_looks_earlier):
        model.unlink()
        processes.run_to_end(params, RUN, 2, looks)
        assert read_lines(metrics) == lines and model.read_bytes() == weights


def with_little_patience(params: Path, run: str) -> None:
    train.LOCK_SECONDS = 0.2
    train_rank(params, run)


def test_no_rank_goes_on_while_another_process_trains_the_run(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    folder = layout.training(tmp_path, RUN)
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert processes.finish(processes.start(params, RUN, 2, with_little_patience)) == [1, 1]
    assert all("is being trained by another process" in log for log in logs(tmp_path))
    assert not read_run(folder)


def with_a_seed_of_its_own(params: Path, run: str) -> None:
    if os.environ["RANK"] == "1":
        other = params.with_name("other.yaml")
        other.write_text(params.read_text().replace("seed: 0", "seed: 1"))
        params = other
    train_rank(params, run)


def test_ranks_with_different_settings_do_not_start(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    assert processes.finish(processes.start(params, RUN, 2, with_a_seed_of_its_own)) == [1, 1]
    assert all("do not see the same settings and data" in log for log in logs(tmp_path))
    assert not read_run(layout.training(tmp_path, RUN))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_one_rank_trains_at_any_zero_stage_and_says_that_it_gains_nothing(tmp_path: Path, stage: int) -> None:
    params = make_project(tmp_path, compute={"deepspeed": f"infra/deepspeed/zero{stage}.json"})
    processes.run_to_end(params, RUN)
    assert f"zero{stage}.json asks for ZeRO stage {stage}" in (tmp_path / "rank-0.log").read_text()
    assert read_run(layout.training(tmp_path, RUN)).status == "finished"


def test_more_threads_than_cores_become_as_many_as_there_are(tmp_path: Path) -> None:
    params = make_project(tmp_path, compute={"threads": 4096})
    processes.run_to_end(params, RUN, 2)
    cores = len(os.sched_getaffinity(0))
    first, second = logs(tmp_path)
    assert f"compute.threads asks for 4096 threads a rank; {cores} cores" in first and "4096" not in second
    assert read_run(layout.training(tmp_path, RUN)).threads == max(1, cores // 2)


def test_a_rank_without_a_gpu_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match="CUDA_VISIBLE_DEVICES"):
        from_environment()
    found = replace(machine.look(), gpu=machine.Gpu("two of a kind", 2**34, "9.0", 2), no_gpu="")
    monkeypatch.setattr(machine, "look", lambda: found)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert from_environment().device == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match=r"rank 2 .* there are 2: set compute\.world_size"):
        from_environment()


def share_one_gpu(params: Path, run: str) -> None:
    """Two ranks on the first GPU; NCCL refuses that, gloo does not, and it is asked for CUDA tensors alone."""
    os.environ["LOCAL_RANK"] = "0"
    join = dist.init_process_group
    dist.init_process_group = lambda *_, **__: join("cuda:gloo")
    train_rank(params, run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_ranks_train_on_a_gpu_without_a_backend_for_the_processor(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN, 2, share_one_gpu)
    assert [line["step"] for line in read_lines(layout.training(tmp_path, RUN) / METRICS)] == [1, 2, 3, 4, 5, 6]
    assert read_run(layout.training(tmp_path, RUN)).device == "cuda"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_two_gpus_train_write_checkpoints_and_go_on_as_one(tmp_path: Path, stage: int) -> None:
    name = "cpu" if stage == 0 else f"zero{stage}"
    params = make_project(tmp_path, compute={"deepspeed": f"infra/deepspeed/{name}.json"})
    ranks = processes.start(params, RUN, 2)
    processes.wait_for_step(params, RUN, 3, ranks)
    assert processes.stop(ranks, signal.SIGTERM) == [train.STOPPED] * 2
    processes.run_to_end(params, RUN, 1)
    assert [line["step"] for line in read_lines(layout.training(tmp_path, RUN) / METRICS)] == [1, 2, 3, 4, 5, 6]
