"""What a run does about numbers that are not finite, a full disk, a missing rank, and settings that do not fit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dav2 import layout
from dav2.training import checkpoints
from dav2.training.journal import METRICS, read_run
from tests.training import processes
from tests.training.processes import read_lines, train_rank
from tests.training.world import COMMON, OPTIM, make_project

RUN = "teacher"


def poisoned(first: int, last: int) -> Callable[[int, dict], None]:
    """Spoils the second image of the batches ``first`` … ``last``."""

    def spoil(index: int, batch: dict) -> None:
        if first <= index <= last:
            batch["image"][1] = torch.nan

    return spoil


def with_spoilt_data(spoil: Callable[[int, dict], None], params: Path, run: str) -> None:
    from dav2.data.feed.loader import TrainingData

    honest = TrainingData.batch

    def batch(self: TrainingData, index: int) -> dict:
        made = honest(self, index)
        if len(self) > 4:  # the training data; validation has four frames
            spoil(index, made)
        return made

    TrainingData.batch = batch  # type: ignore[assignment,method-assign]
    train_rank(params, run)


def train_with_one_bad_batch(params: Path, run: str) -> None:
    with_spoilt_data(poisoned(2, 2), params, run)


def train_with_bad_batches_from_the_third(params: Path, run: str) -> None:
    with_spoilt_data(poisoned(2, 99), params, run)


@pytest.mark.parametrize(("stage", "world"), [(0, 1), (1, 2)])
def test_an_update_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, stage: int, world: int) -> None:
    name = "cpu" if stage == 0 else f"zero{stage}"
    params = make_project(tmp_path, compute={"deepspeed": f"infra/deepspeed/{name}.json"})
    processes.run_to_end(params, RUN, world, train_with_one_bad_batch)
    lines = read_lines(layout.training(tmp_path, RUN) / METRICS)
    assert [line.get("skipped_update", False) for line in lines] == [False, False, True, False, False, False]
    assert lines[2]["loss"] is None and len(lines[2]["suspects"]) == world
    assert lines[3]["loss"] > 0
    assert read_run(layout.training(tmp_path, RUN)).skipped == 1


def test_too_many_bad_updates_in_a_row_stop_the_run_and_name_the_frames(tmp_path: Path) -> None:
    teacher = {**COMMON, "sources": ["rooms"], "checkpoint": {"max_bad_steps": 2, "every_steps": 2}}
    params = make_project(tmp_path, teacher=teacher)
    ranks = processes.start(params, RUN, 1, train_with_bad_batches_from_the_third)
    assert processes.finish(ranks) == [1]
    message = (tmp_path / "rank-0.log").read_text()
    assert "2 updates in a row were not finite, up to step 4" in message
    assert "rooms/scene" in message
    assert not layout.model(tmp_path, RUN).exists()


def train_on_a_full_disk(params: Path, run: str) -> None:
    real = checkpoints.require_space

    def full(directory: Path, needed: int) -> None:
        if (directory / "step-000002").exists() and not (directory / "step-000006.tmp").exists():
            real(directory, needed if _last_step(params, run) == 6 else 10**21)
        else:
            real(directory, needed)

    checkpoints.require_space = full
    train_rank(params, run)


def _last_step(params: Path, run: str) -> int:
    return int(read_lines(layout.training(params.parent, run) / METRICS)[-1]["step"])


def test_a_checkpoint_that_does_not_fit_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN, 1, train_on_a_full_disk)
    kept = [checkpoints.step_of(p) for p in checkpoints.list_checkpoints(layout.checkpoints(tmp_path, RUN))]
    assert kept == [2, 6]
    assert read_run(layout.training(tmp_path, RUN)).failed_checkpoints == 1
    assert "make room, or keep fewer checkpoints" in (tmp_path / "rank-0.log").read_text()


def test_when_a_rank_dies_the_other_does_not_wait_for_ever(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    ranks = processes.start(params, RUN, world=2)
    processes.wait_for_step(params, RUN, 1, ranks)
    ranks[1].kill()
    codes = processes.finish(ranks)
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None, -signal.SIGKILL)


@pytest.mark.parametrize(
    ("config", "message"),
    [('{"gradient_clipping": 1.0}', "sets gradient_clipping, which params.yaml decides"), ("{", "is not JSON"),
     (None, "does not exist")],
)  # fmt: skip
def test_an_engine_configuration_that_does_not_fit_is_an_error(
    tmp_path: Path, config: str | None, message: str
) -> None:
    params = make_project(tmp_path)
    file = tmp_path / "infra" / "deepspeed" / "cpu.json"
    file.unlink()
    if config is not None:
        file.write_text(config)
    assert processes.finish(processes.start(params, RUN)) == [1]
    assert message in (tmp_path / "rank-0.log").read_text()


def test_accumulating_gradients_gives_the_same_run(tmp_path: Path) -> None:
    losses = []
    for accumulate, average in ((1, 0.0), (2, 0.9)):
        optim = {**OPTIM, "accumulate": accumulate, "ema": average}
        params = make_project(tmp_path / str(accumulate), teacher={**COMMON, "sources": ["rooms"], "optim": optim})
        processes.run_to_end(params, RUN)
        losses.append([line["loss"] for line in read_lines(layout.training(params.parent, RUN) / METRICS)])
    # Later steps drift apart: sums in another order move medians, and Adam makes much of little.
    assert losses[1][:4] == pytest.approx(losses[0][:4], rel=2e-3)


def test_student_and_metric_runs_train_with_average_and_recomputation_in_bf16(tmp_path: Path) -> None:
    compute = {"precision": "bf16", "activation_checkpointing": True}
    students = {"n": {**COMMON, "sources": ["snaps"], "loss": {"trim": 0.1}, "augment": {"cutmix": 0.5},
                      "optim": {**OPTIM, "ema": 0.9}}}  # fmt: skip
    params = make_project(tmp_path, compute=compute, students=students)
    for run in ("student-n", "metric-near"):
        ranks = processes.start(params, run)
        processes.wait_for_step(params, run, 2, ranks)
        processes.stop(ranks, signal.SIGTERM)
        processes.run_to_end(params, run)
        assert [line["step"] for line in read_lines(layout.training(tmp_path, run) / METRICS)] == [1, 2, 3, 4, 5, 6]
        assert (layout.model(tmp_path, run) / "model.safetensors").exists()
