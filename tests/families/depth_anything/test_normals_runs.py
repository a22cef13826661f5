"""Runs of Depth Anything that learn normals: loss, batches, start, and scores beside the trivial baseline's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from dav2 import families, layout
from dav2.data.frame import Frame
from dav2.data.store.manifest import ManifestError
from dav2.evaluation.evaluate import EvaluationError, evaluate_model
from dav2.families.depth_anything.losses import angular_loss
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.tasks import NormalsTask
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.outside import take_in
from dav2.maps import Quantity
from dav2.params import OutsideParams, Params, ParamsError, load
from dav2.scores.normals import NAMES
from dav2.training.journal import METRICS
from dav2.training.recipes import Recipe, build_recipe
from tests.data.test_layers import shards_of
from tests.families.marigold.test_layer_runs import hold_out
from tests.training import processes
from tests.training.world import COMMON, OPTIM, make_project

DIRECTIONS = np.array([[-0.8, 0, 0.6], [0.8, 0, 0.6]], np.float32)
COLOURS = np.array([[230, 40, 40], [40, 230, 40]], np.float64)
RECIPE = {**COMMON, "sources": ["rooms"], "steps": 24, "batch": 8, "crop": 56, "input_size": 56,
          "loss": {"target": "normals"}, "augment": {"flip": 0.0},  # a mirror would part colours from directions
          "optim": {**OPTIM, "encoder_lr": 1e-3, "decoder_lr": 2e-3},
          "checkpoint": {"every_steps": 24, "evaluate_every": 12, "evaluate_frames": 2}}  # fmt: skip
BENCHMARKS = {"normals": {"source": "da2k", "protocol": "normals-plain"}}


def painted(number: int) -> Frame:
    """Squares whose colour says which way they face; of the first rows nothing is known."""
    rng = np.random.default_rng(number)
    kinds = np.repeat(np.repeat(rng.integers(0, 2, (2, 2)), 28, 0), 28, 1)
    rgb = (COLOURS[kinds] + rng.normal(0, 8, (56, 56, 3))).clip(0, 255).astype(np.uint8)
    normals = DIRECTIONS[kinds].copy()
    normals[:3] = np.nan
    return Frame(f"made/rooms/f{number}", rgb, np.full((56, 56), 2.0, np.float32), normals=normals)


def project(root: Path, **sections: Any) -> Path:
    """The small project, its teacher one of normals and nobody after it."""
    file = make_project(root)
    tree = yaml.safe_load(file.read_text())
    evaluate = {"da2k": "da2k", "models": ["teacher"], "benchmarks": BENCHMARKS}
    tree |= {"teacher": RECIPE, "students": {}, "metric": {}, "evaluate": evaluate}
    tree["pseudo_label"]["sources"] = []
    file.write_text(yaml.safe_dump({**tree, **sections}))
    return file


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with frames that have normals, and its teacher trained."""
    file = project(tmp_path_factory.mktemp("normals"))
    params = load(file)
    hold_out(shards_of([painted(number) for number in range(10)], file.parent / params.shards("rooms")), 2)
    shards_of([painted(number) for number in range(10, 13)], file.parent / params.shards("da2k"))
    processes.run_to_end(file, "teacher")
    return file.parent


def recipe(root: Path, **changes: Any) -> Recipe:
    """The teacher's, with other settings."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["outside"] = {"a": {"model": "a"}}
    tree["teacher"] |= changes
    return build_recipe(Params.model_validate(tree), "teacher", root, families.get("depth_anything"))


def slow_angle(one: Any, other: Any) -> float:
    """Radians between two vectors."""
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    lengths = math.prod(math.sqrt(sum(float(a) ** 2 for a in each)) for each in (one, other))
    return math.acos(max(-1.0, min(1.0, dot / lengths)))


@pytest.mark.parametrize("trim", [0.0, 0.25])
def test_the_loss_equals_the_obvious_version(trim: float) -> None:
    generator = torch.Generator().manual_seed(3)
    prediction = torch.randn(3, 3, 7, 9, generator=generator, dtype=torch.float64)
    target = torch.nn.functional.normalize(torch.randn(3, 3, 7, 9, generator=generator, dtype=torch.float64), dim=1)
    mask = torch.rand(3, 7, 9, generator=generator) > 0.3
    mask[2] = False
    target = target.where(mask[:, None], torch.nan)
    found = angular_loss(prediction.requires_grad_(), target, mask, trim)
    for image in range(2):
        known = [(y, x) for y in range(7) for x in range(9) if mask[image, y, x]]
        errors = sorted(slow_angle(prediction[image, :, y, x].tolist(), target[image, :, y, x]) for y, x in known)
        kept = errors[: len(errors) - int(trim * len(errors))]
        assert float(found[image].detach()) == pytest.approx(sum(kept) / len(kept), rel=1e-6)
    assert float(found[2].detach()) == 0
    found.sum().backward()
    assert prediction.grad is not None and bool(torch.isfinite(prediction.grad).all())
    assert not prediction.grad[2].any() and not prediction.grad.movedim(1, -1)[~mask].any()


def test_the_loss_has_a_slope_where_all_is_right_or_opposite() -> None:
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    for sign, angle in ((1.0, 0.0), (-1.0, math.pi)):
        prediction = (sign * target).clone().requires_grad_()
        loss = angular_loss(prediction, target, torch.ones(1, 2, 2, dtype=torch.bool))
        loss.sum().backward()
        assert float(loss.detach()) == pytest.approx(angle, abs=1e-5)
        assert prediction.grad is not None and bool(torch.isfinite(prediction.grad).all())


def test_a_mirrored_photograph_has_mirrored_normals(root: Path) -> None:
    """The batches that a run asks for, and what the loss makes of a prediction that is mirrored along."""
    plain, mirrored = (recipe(root, augment={"flip": flip}).data(0, 1, 0).batch(0) for flip in (0.0, 1.0))
    assert torch.equal(mirrored["image"], plain["image"].flip(-1))
    assert torch.equal(mirrored["mask"], plain["mask"].flip(-1)) and not plain["mask"].all()
    turned = torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(mirrored["target"], plain["target"].flip(-1) * turned)
    assert plain["target"].shape == (8, 3, 56, 56) and plain["mask"].shape == (8, 1, 56, 56)
    guess = torch.randn(8, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    one = angular_loss(guess, plain["target"], plain["mask"][:, 0])
    other = angular_loss(guess.flip(-1) * turned, mirrored["target"], mirrored["mask"][:, 0])
    torch.testing.assert_close(one, other)


def test_a_pasted_piece_brings_its_normals(root: Path) -> None:
    batch = recipe(root, augment={"flip": 0.0, "cutmix": 1.0}).data(0, 1, 0).batch(0)
    known = batch["mask"][:, 0]
    lengths = batch["target"].norm(dim=1)
    assert bool(batch["region"].any()) and (lengths[known] - 1).abs().max() < 1e-5 and not lengths[~known].any()
    pixels = batch["image"].movedim(1, -1)[known] * torch.tensor([0.229, 0.224, 0.225])
    brightest = (pixels + torch.tensor([0.485, 0.456, 0.406])).argmax(dim=-1)
    expected = torch.from_numpy(DIRECTIONS)[brightest]
    assert ((batch["target"].movedim(1, -1)[known] - expected).abs().amax(dim=-1) < 0.3).float().mean() > 0.95


def test_a_run_learns_and_is_scored_as_marigold_is(root: Path) -> None:
    params = load(root / "params.yaml")
    lines = [json.loads(line) for line in (layout.training(root, "teacher") / METRICS).read_text().splitlines()]
    assert lines[-1]["angle"] < 0.5 * lines[0]["angle"] and lines[-1]["loss"] == lines[-1]["angle"]
    model = load_directory(layout.model(root, "teacher"))
    assert model.quantity is Quantity.NORMALS
    scores = evaluate_model("teacher", params, root)
    assert scores.quantity == "normals" and list(scores.benchmarks) == ["normals"] and scores.da2k is None
    entry, facing = scores.benchmarks["normals"], evaluate_model("baseline-facing", params, root).benchmarks["normals"]
    assert entry.scored == 3 and not entry.problems and list(entry.metrics) == list(NAMES)
    assert (entry.protocol_hash, entry.data) == (facing.protocol_hash, facing.data)
    assert (entry.intervals["mean"][1] or 90) < (facing.intervals["mean"][0] or 0)
    with pytest.raises(EvaluationError, match="'da2k' judges depth; the model predicts normals"):
        evaluate_model("teacher", params, root, benchmarks=["da2k"])


def test_previews_show_photograph_prediction_and_target(root: Path) -> None:
    pictures = sorted(layout.training(root, "teacher").rglob("*.png"))
    assert pictures
    picture = cv2.imread(str(pictures[-1]))[..., ::-1]
    assert picture.shape == (2 * 56, 3 * 56, 3)
    assert (picture[:, 112:] == (128, 128, 128)).all(axis=-1).any(), "what is unknown is grey"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "all taken but the last layer, which predicted relative disparity and is made anew"),
        ({"max_depth": 20.0}, "all taken but the last layer, which predicted metre and is made anew"),
        ({"target": Quantity.NORMALS}, "all taken"),
    ],
)
def test_a_start_from_depth_has_its_head_made_anew(root: Path, given: dict[str, Any], said: str) -> None:
    torch.manual_seed(4)
    published = build("vitn", **given)
    save_directory(published, root / "a")
    take_in("a", OutsideParams(model="a"), root)
    task = recipe(root, start="outside/a").task()
    assert isinstance(task, NormalsTask) and task.began == said
    drawn = _model(recipe(root))
    ours, theirs = task.model.state_dict(), published.state_dict()
    head = {name for name in ours if ".head3." in name}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - head)
    wanted = theirs if said == "all taken" else drawn.state_dict()
    assert len(head) == 2 and all(torch.equal(ours[name], wanted[name]) for name in head)


def test_a_start_from_normals_has_the_head_of_depth_made_anew(root: Path) -> None:
    save_directory(build("vitn", target=Quantity.NORMALS), root / "a")
    take_in("a", OutsideParams(model="a"), root)
    began = recipe(root, start="outside/a", loss={}).task().began
    assert began == "all taken but the last layer, which predicted normals and is made anew"


def _model(which: Recipe) -> DepthAnything:
    task = which.task()
    assert isinstance(task, NormalsTask)
    return task.model


def test_frames_without_normals_are_said(tmp_path: Path) -> None:
    project(tmp_path)
    with pytest.raises(ManifestError, match="no frame of split 'train' has normals; name them in the option 'layers'"):
        recipe(tmp_path).data(0, 1, 0)


STUDENTS = {
    "students": {"n": {**COMMON, "sources": ["snaps"]}},
    "pseudo_label": {"sources": ["snaps"], "input_size": 28},
}
METRIC = {"near": {**COMMON, "sources": ["rooms"], "max_depth": 20.0, "loss": {"target": "normals"}}}


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"teacher": {**RECIPE, "loss": {"target": "normals", "kind": "relative"}}}, "kind 'relative' is a loss of"),
        (
            {"teacher": {**RECIPE, "loss": {"target": "normals", "gradient": 0.25}}},
            "gradient belong to losses of",
        ),
        ({"teacher": {**RECIPE, "loss": {"kind": "angular"}}}, "kind 'angular' is for target normals"),
        (STUDENTS, "students.n.loss.target is disparity, but its teacher gives labels of normals; set both alike"),
        ({"metric": METRIC}, "metric.near.loss.target is normals, but metric models learn metres"),
    ],
)
def test_wrong_combinations_are_refused(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        load(project(tmp_path, **sections))


def test_no_fog_comes_from_a_teacher_that_sees_no_distance(tmp_path: Path) -> None:
    evaluate = {"da2k": "da2k", "models": ["teacher"], "robustness": ["fog"]}
    with pytest.raises(ParamsError, match="fog takes distances from the teacher, and this one predicts normals"):
        load(project(tmp_path, evaluate=evaluate))


def test_a_student_learns_from_labels_of_normals_alone(root: Path) -> None:
    """Labels of depth, which are all that the small project has, are told from those of normals."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree |= {"students": {"n": {**COMMON, "sources": ["snaps"], "loss": {"target": "normals", "trim": 0.1}}}}
    tree["pseudo_label"]["sources"] = ["snaps"]
    student = build_recipe(Params.model_validate(tree), "student-n", root, families.get("depth_anything"))
    assert isinstance(student.task(), NormalsTask) and student.run.quantity is Quantity.NORMALS
    with pytest.raises(ManifestError, match="its labels are not normals"):
        student.data(0, 1, 0)
