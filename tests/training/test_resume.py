"""Runs that are killed, stopped and continued give what an uninterrupted run gives."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import Tensor

from dav2 import families, layout, limits, machine
from dav2.data.store.manifest import manifest_digest
from dav2.families.depth_anything.weights import load_directory
from dav2.params import load
from dav2.training import checkpoints
from dav2.training.journal import EVALUATIONS, METRICS, read_run
from dav2.training.recipes import build_recipe
from dav2.training.train import STOPPED
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import OPTIM, make_project

RUN = "teacher"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose teacher was trained without interruption."""
    params = make_project(tmp_path_factory.mktemp("whole"))
    processes.run_to_end(params, RUN)
    return params.parent


def weights(root: Path) -> bytes:
    return (layout.model(root, RUN) / "model.safetensors").read_bytes()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of two models' weights, all of them taken as one vector."""
    assert one.keys() == other.keys()
    return math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))


def metrics(root: Path) -> list[dict[str, object]]:
    return processes.comparable(read_lines(layout.training(root, RUN) / METRICS))


def test_a_run_leaves_model_curves_evaluations_and_pictures(whole: Path) -> None:
    folder = layout.training(whole, RUN)
    assert [line["step"] for line in read_lines(folder / METRICS)] == [1, 2, 3, 4, 5, 6]
    evaluations = read_lines(folder / EVALUATIONS)
    assert [line["step"] for line in evaluations] == [2, 3, 4, 6]
    assert all(line["val_loss"] > 0 and 0 <= line["da2k"] <= 1 and line["da2k_pairs"] == 24 for line in evaluations)
    da2k = {"name": "da2k", "digest": manifest_digest(whole / load(whole / "params.yaml").shards("da2k"))}
    assert all(line["measured_on"]["da2k"] == da2k for line in evaluations)
    # As many pairs of each kind, so their mean is the whole.
    assert all(np.mean(list(line["da2k_kinds"].values())) == pytest.approx(line["da2k"]) for line in evaluations)
    assert sorted(p.name for p in (folder / "previews").iterdir()) == [f"step-{s:06d}.png" for s in (2, 3, 4, 6)]
    assert sorted(p.name for p in layout.model(whole, RUN).iterdir()) == ["card.md", "config.json", "model.safetensors"]
    assert read_run(folder).status == "finished"
    # The best of those that have a checkpoint, which is not pruned; step 3 was only measured.
    kept = {line["step"]: line["da2k"] for line in evaluations if line["step"] != 3}
    best = read_run(folder).best_step
    assert kept[best] == max(kept.values()) and (folder / "checkpoints" / f"step-{best:06d}").is_dir()


def test_a_line_for_several_steps_holds_their_means_also_after_a_kill_between_them(whole: Path, tmp_path: Path) -> None:
    params = make_project(tmp_path)
    document = yaml.safe_load(params.read_text())
    # A checkpoint after each step, so that the run is taken up in the middle of a line.
    document["teacher"]["checkpoint"] |= {"log_every": 2, "every_steps": 1}
    params.write_text(yaml.safe_dump(document))
    ranks = processes.start(params, RUN)
    processes.wait_for_step(params, RUN, 2, ranks)
    processes.stop(ranks, signal.SIGKILL)
    processes.run_to_end(params, RUN)
    assert weights(tmp_path) == weights(whole)
    lines, singles = metrics(tmp_path), metrics(whole)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line, pair in zip(lines, zip(singles[::2], singles[1::2], strict=True), strict=True):
        assert line["loss"] == pytest.approx(sum(each["loss"] for each in pair) / 2, rel=1e-6)
        assert line["grad_norm"] == pair[1]["grad_norm"] and line["lr_encoder"] == pair[1]["lr_encoder"]


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    params = make_project(tmp_path)
    for step in np.random.default_rng(0).integers(1, 6, 3).tolist():
        ranks = processes.start(params, RUN)
        done = layout.training(tmp_path, RUN) / METRICS
        processes.wait_for_step(params, RUN, step if done.exists() else 1, ranks)
        assert processes.stop(ranks, signal.SIGKILL) in ([-signal.SIGKILL], [0])
    processes.run_to_end(params, RUN)
    assert weights(tmp_path) == weights(whole)
    assert metrics(tmp_path) == metrics(whole)


def test_a_stopped_run_writes_a_checkpoint_and_goes_on_from_it(whole: Path, tmp_path: Path) -> None:
    params = make_project(tmp_path)
    ranks = processes.start(params, RUN)
    processes.wait_for_step(params, RUN, 1, ranks)
    assert processes.stop(ranks, signal.SIGTERM) == [STOPPED]
    newest = checkpoints.newest(layout.training(tmp_path, RUN) / "checkpoints")
    assert newest is not None
    assert checkpoints.step_of(newest) == read_lines(layout.training(tmp_path, RUN) / METRICS)[-1]["step"]
    before = read_run(layout.training(tmp_path, RUN))
    processes.run_to_end(params, RUN)
    assert weights(tmp_path) == weights(whole)
    after = read_run(layout.training(tmp_path, RUN))
    assert (after.code, before.resumed) == (before.code, [])
    assert [again.step for again in after.resumed] == [checkpoints.step_of(newest)]


def test_a_finished_run_only_writes_its_model_again(whole: Path, tmp_path: Path) -> None:
    folder, before = layout.training(whole, RUN), weights(whole)
    written = (folder / METRICS).stat().st_mtime_ns
    (layout.model(whole, RUN) / "model.safetensors").unlink()
    processes.run_to_end(whole / "params.yaml", RUN)
    assert weights(whole) == before
    assert (folder / METRICS).stat().st_mtime_ns == written


def test_a_checkpoint_with_a_damaged_file_is_passed_over(whole: Path, tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN)
    last = layout.training(tmp_path, RUN) / "checkpoints" / "step-000006"
    state = last / "engine" / "mp_rank_00_model_states.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"\0")
    (layout.training(tmp_path, RUN) / METRICS).open("a").write('{"step": 7, "cut o')
    processes.run_to_end(params, RUN)
    assert weights(tmp_path) == weights(whole)
    assert metrics(tmp_path) == metrics(whole)


def test_a_changed_recipe_starts_afresh(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN)
    first = read_run(layout.training(tmp_path, RUN))
    tree = params.read_text()
    params.write_text(tree.replace("seed: 0", "seed: 1"))
    processes.run_to_end(params, RUN)
    second = read_run(layout.training(tmp_path, RUN))
    assert first.fingerprint != second.fingerprint
    assert [line["step"] for line in read_lines(layout.training(tmp_path, RUN) / METRICS)] == [1, 2, 3, 4, 5, 6]


def recorded_code(root: Path, digest: str) -> None:
    """As if the run had been begun by other code."""
    path = layout.training(root, RUN) / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "code": {**record["code"], "digest": digest}}))


def test_a_finished_run_of_other_code_is_trained_again(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    processes.run_to_end(params, RUN)
    before, current = weights(tmp_path), read_run(layout.training(tmp_path, RUN)).code.digest
    recorded_code(tmp_path, "0" * 64)
    processes.run_to_end(params, RUN)
    again = read_run(layout.training(tmp_path, RUN))
    assert again.code.digest == current and again.resumed == []
    assert weights(tmp_path) == before


def test_a_run_that_is_half_done_goes_on_with_other_code_and_says_so(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    ranks = processes.start(params, RUN)
    processes.wait_for_step(params, RUN, 3, ranks)
    processes.stop(ranks, signal.SIGKILL)
    recorded_code(tmp_path, "0" * 64)
    processes.run_to_end(params, RUN)
    after = read_run(layout.training(tmp_path, RUN))
    assert after.code.digest == "0" * 64
    assert [again.code.digest != "0" * 64 for again in after.resumed] == [True]
    assert "the code that trains has changed" in (tmp_path / "rank-0.log").read_text()


def test_two_ranks_killed_and_continued_equal_two_ranks_uninterrupted(tmp_path: Path) -> None:
    ends = []
    for name in ("straight", "killed"):
        params = make_project(tmp_path / name)
        if name == "killed":
            ranks = processes.start(params, RUN, world=2)
            processes.wait_for_step(params, RUN, 3, ranks)
            processes.stop(ranks, signal.SIGKILL)
        processes.run_to_end(params, RUN, world=2)
        ends.append(weights(params.parent))
    assert ends[0] == ends[1]


def losses_agree(ours: Path, theirs: Path) -> None:
    """Two runs whose sums were taken in another order: equal to rounding at first, then apart by a factor of at most
    about ten a step, because Adam's first updates hang on the signs of gradients near zero."""
    for line, reference in zip(metrics(ours), metrics(theirs), strict=True):
        allowed = min(2e-2, 1e-6 * 10 ** line["step"])
        assert line["loss"] == pytest.approx(reference["loss"], rel=allowed), line["step"]


def test_two_ranks_agree_with_one_and_a_run_may_change_their_number(whole: Path, tmp_path: Path) -> None:
    params = make_project(tmp_path)
    ranks = processes.start(params, RUN, world=2)
    processes.wait_for_step(params, RUN, 2, ranks)
    assert processes.stop(ranks, signal.SIGTERM) == [STOPPED, STOPPED]
    processes.run_to_end(params, RUN, world=1)
    losses_agree(tmp_path, whole)
    states = [json.loads((path / "state.json").read_text()) for path in
              checkpoints.list_checkpoints(layout.training(tmp_path, RUN) / "checkpoints")]  # fmt: skip
    assert states[-1]["world"] == 1


GENTLE = {**OPTIM, "encoder_lr": 1e-5, "decoder_lr": 2e-5}
"""Rates at which a run does not magnify what two orders of adding up differ by; at the usual ones a run is chaotic."""


@pytest.fixture(scope="module")
def gentle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``whole``, with gentle steps."""
    params = make_project(tmp_path_factory.mktemp("gentle"), teacher={"optim": GENTLE})
    processes.run_to_end(params, RUN)
    return params.parent


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_stages_train_alike_and_move_to_another_number_of_ranks(gentle: Path, tmp_path: Path, stage: int) -> None:
    compute = {"deepspeed": f"infra/deepspeed/zero{stage}.json"}
    params = make_project(tmp_path, compute=compute, teacher={"optim": GENTLE})
    ranks = processes.start(params, RUN, world=2)
    processes.wait_for_step(params, RUN, 3, ranks)
    assert processes.stop(ranks, signal.SIGTERM) == [STOPPED, STOPPED]
    processes.run_to_end(params, RUN, world=1)
    losses_agree(tmp_path, gentle)
    # All weights together: of a single one whose gradient is mere rounding, Adam makes a whole step either way.
    ours, theirs = (load_directory(layout.model(root, RUN)).state_dict() for root in (tmp_path, gentle))
    start = build_recipe(load(params), RUN, tmp_path, families.get("depth_anything"), "fp32").task().model.state_dict()
    assert distance(ours, theirs) < 0.02 * distance(start, theirs)


def test_a_run_goes_on_in_the_precision_it_began_in(tmp_path: Path) -> None:
    here = machine.precision("auto", "cpu").name
    other = "bf16" if here == "fp32" else "fp32"
    straight = make_project(tmp_path / "straight", compute={"precision": other})
    processes.run_to_end(straight, RUN)
    params = make_project(tmp_path / "moved", compute={"precision": other})
    ranks = processes.start(params, RUN)
    processes.wait_for_step(params, RUN, 1, ranks)
    processes.stop(ranks, signal.SIGTERM)
    # As on another machine: what the settings leave open means something else here.
    params.write_text(params.read_text().replace(f"precision: {other}", "precision: auto"))
    processes.run_to_end(params, RUN)
    described = read_run(layout.training(params.parent, RUN))
    assert (described.precision, described.precision_why) == (other, "this run began in it")
    assert described.machine["cores"] == limits.cores()
    assert weights(params.parent) == weights(straight.parent)
    # A changed recipe is a new run, which takes what is fast here.
    params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    processes.run_to_end(params, RUN)
    assert read_run(layout.training(params.parent, RUN)).precision == here
