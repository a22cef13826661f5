"""The bridge: a network that corrects the map of a student, and begins as that student."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dav2
from dav2 import families, layout
from dav2.families.depth_anything.weights import load_directory as load_student
from dav2.families.directory import WeightsError
from dav2.families.marigold.ceiling import make_codec
from dav2.families.marigold.official import save_pipeline
from dav2.families.marigold.refinement import agreed
from dav2.families.marigold.refiner import Refiner, scaled
from dav2.families.marigold.surgery import fit
from dav2.families.marigold.weights import load_directory, save_directory
from dav2.params import ParamsError, RefineParams, load
from dav2.runs import get_run
from dav2.tracking import lineage
from tests.families.marigold.builders import model, patch_codec, photograph, refiner, student
from tests.families.marigold.test_runs import CODEC, RUN
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import make_project

PHOTOGRAPHS = [photograph(60, 84), photograph(90, 50, 1), photograph(60, 84, 2)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_it_begins_as_the_student_bit_for_bit(precision: torch.dtype) -> None:
    bridge = refiner(patch_codec(), silent=True).to(precision)
    for size in (None, 84):
        plain = student().infer_images(PHOTOGRAPHS, size)
        found = bridge.infer_images(PHOTOGRAPHS, size)
        assert all((ours == theirs).all() for ours, theirs in zip(found, plain, strict=True))
    predictor, theirs = families.get("marigold").predictor(bridge), families.get("depth_anything").predictor(student())
    for enlarge in (0.5, 1.0, 1.5):
        batch = predictor.prepare(PHOTOGRAPHS[0], enlarge)[None]
        with torch.inference_mode():
            expected = theirs.predict(theirs.prepare(PHOTOGRAPHS[0], enlarge)[None])
            assert (predictor.predict(batch) == expected).all()


def test_a_network_that_says_something_changes_the_map_and_is_kept(tmp_path: Path) -> None:
    bridge = refiner(patch_codec())
    found = bridge.infer_images(PHOTOGRAPHS)
    plain = student().infer_images(PHOTOGRAPHS)
    assert all(np.abs(ours - theirs).max() > 1e-4 for ours, theirs in zip(found, plain, strict=True))
    assert bridge.unet.config["in_channels"] == 12
    save_directory(bridge, tmp_path)
    again = dav2.load(tmp_path, "cpu", "fp32")
    assert isinstance(again, Refiner) and not any(p.requires_grad for p in again.guide.parameters())
    # Where weights lie in memory shows in the last digit.
    for ours, kept in zip(found, again.infer_images(PHOTOGRAPHS), strict=True):
        assert np.abs(ours - kept).max() < 1e-6
    assert not again.train().guide.training, "the guide never trains"


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    bridge = refiner(patch_codec())
    with pytest.raises(ValueError, match="steps and ensemble must be 1"):
        bridge.infer_image(PHOTOGRAPHS[0], steps=4)
    with pytest.raises(ValueError, match="input size 60 is not a multiple of 14"):
        bridge.infer_image(PHOTOGRAPHS[0], 60)
    with pytest.raises(ValueError, match="a refiner needs the model that it refines"):
        save_pipeline(bridge, tmp_path / "pipeline")
    save_directory(bridge, tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    for guide, message in (("vitn", "guide must describe a model"), ({"family": "onnx"}, "cannot be part of another")):
        (tmp_path / "config.json").write_text(json.dumps({**document, "guide": guide}))
        with pytest.raises(WeightsError, match=message):
            load_directory(tmp_path)


def test_a_network_that_saw_a_photograph_ignores_the_map_at_first() -> None:
    before = model(patch_codec())
    given = torch.randn(2, 12, 4, 4)
    text = before.prompt.expand(2, -1, -1)
    with torch.no_grad():
        alone = before.unet(given[:, [0, 1, 2, 3, 8, 9, 10, 11]], 999, text).sample
        assert "12 channels instead of 8" in fit(before.unet, 4, 2)
        assert (before.unet(given, 999, text).sample - alone).abs().max() < 1e-5


def test_only_patches_that_agree_count() -> None:
    torch.manual_seed(0)
    target = torch.rand(4, 24, 24) * 2 - 1
    values = (target - 0.3) / 0.5
    values[0, :8, :8] += 3.0
    values[1] = -values[1]
    values[2] = 0.7
    mask = torch.ones(4, 24, 24, dtype=torch.bool)
    mask[3] = False
    found = agreed(values, target, mask, RefineParams(agree=0.3))
    assert not found.mask[0, :8, :8].any() and found.mask[0, 8:, 8:].all()
    assert not found.mask[1:].any(), "upside down, constant, without a valid pixel"
    exact = agreed((target[1:2] - 0.3) / 0.5, target[1:2], mask[1:2], RefineParams())
    assert exact.mask.all() and float(exact.slope) == pytest.approx(0.5, rel=1e-4)
    assert (exact.target - (target[1:2] - 0.3) / 0.5).abs().max() < 1e-5
    assert all(bool(each.isfinite().all()) for each in found)


def test_a_constant_map_is_left_alone() -> None:
    values, spread = scaled(torch.full((1, 8, 8), 3.0))
    assert not values.any() and not spread.any()
    values, spread = scaled(torch.arange(101.0).view(1, 1, 101))
    assert float(spread) == 96 and float(values[0, 0, 2]) == -1 and float(values[0, 0, 98]) == 1


REFINE: dict[str, Any] = {
    **RUN, "codec": "disparity", "target": "disparity", "objective": "refine", "refines": "models/student-n",
    "refine": {"agree": 0.5, "least_slope": 1e-3}, "crop": 56, "input_size": None,
}  # fmt: skip


def project(root: Path, **changes: Any) -> Path:
    codecs = {"disparity": {**CODEC, "target": "disparity"}, "patch": CODEC}
    path = make_project(root, codecs=codecs, marigold={"bridge": {**REFINE, **changes}})
    params = load(path)
    make_codec(params, "disparity", root)
    families.get("depth_anything").save(student(), layout.model(root, "student-n"), "", {})
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = project(tmp_path_factory.mktemp("refiner"))
    processes.run_to_end(params, "marigold-bridge")
    return params.parent


def test_a_run_trains_the_network_and_not_the_student(whole: Path) -> None:
    made = dav2.load(layout.model(whole, "marigold-bridge"), "cpu", "fp32")
    before = load_student(layout.model(whole, "student-n"))
    assert all((made.guide.state_dict()[name] == each).all() for name, each in before.state_dict().items())
    assert made.unet.conv_out.weight.abs().max() > 0
    lines = read_lines(layout.training(whole, "marigold-bridge") / "metrics.jsonl")
    assert any(line["loss"] > 0 for line in lines), "a map turned upside down counts for nothing, others do"
    evaluations = read_lines(layout.training(whole, "marigold-bridge") / "evaluations.jsonl")
    assert evaluations[-1]["val_loss"] > 0 and evaluations[-1]["da2k"] is not None
    assert list((layout.training(whole, "marigold-bridge") / "previews").glob("*.png"))
    rgb = photograph(60, 84)
    assert np.abs(made.infer_image(rgb) - before.infer_image(rgb)).max() > 0


def test_a_run_killed_and_resumed_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    params = project(tmp_path)
    ranks = processes.start(params, "marigold-bridge")
    processes.wait_for_step(params, "marigold-bridge", 2, ranks)
    processes.stop(ranks, signal.SIGKILL)
    processes.run_to_end(params, "marigold-bridge")
    assert (
        layout.weights(tmp_path, "marigold-bridge").read_bytes()
        == layout.weights(whole, "marigold-bridge").read_bytes()
    )


def test_the_student_stands_in_the_lineage_and_decides_the_recipe(whole: Path) -> None:
    params = load(whole / "params.yaml")
    assert get_run(params, "marigold-bridge").parents == {"refined": "student-n"}
    (whole / "dvc.lock").write_text("stages: {}\n")
    (parent,) = lineage.collect("marigold-bridge", whole, params).parents
    assert (parent["run"], parent["role"]) == ("student-n", "refined")
    record = json.loads((layout.training(whole, "marigold-bridge") / "run.json").read_text())
    assert record["origins"]["refined"] == parent["weights_sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refines": "nothing"}, "objective 'refine' needs 'refines'"),
        ({"objective": "one_step_x0"}, "no other objective takes it"),
        ({"refines": "models/student-z"}, "no teacher or student named 'student-z' is trained here"),
        ({"refines": "models/metric-near"}, "no teacher or student named 'metric-near'"),
        ({"refines": "outside/other"}, "no model 'other' in section 'outside'"),
        ({"target": "depth"}, "student-n predicts disparity; set marigold.bridge.target to that, not to depth"),
        ({"infer_steps": 4}, "infer_steps must be 1"),
        ({"refine": {"agree": 0.0}}, "refine.agree"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = make_project(tmp_path, codecs={"disparity": CODEC}, marigold={"bridge": {**REFINE, **change}})
    with pytest.raises(ParamsError, match=message):
        load(path)


def test_a_crop_that_the_student_does_not_take_as_it_is_stops_the_run(tmp_path: Path) -> None:
    params = project(tmp_path, crop=64)
    assert processes.finish(processes.start(params, "marigold-bridge")) != [0]
    assert "sees a crop of 64 × 64 at 70 × 70 pixels" in (tmp_path / "rank-0.log").read_text()


def test_a_student_that_is_not_trained_is_named(tmp_path: Path) -> None:
    params = project(tmp_path)
    layout.weights(tmp_path, "student-n").unlink()
    assert processes.finish(processes.start(params, "marigold-bridge")) != [0]
    assert "marigold-bridge refines student-n, which is not trained; train it" in (tmp_path / "rank-0.log").read_text()
