"""What each kind of run learns from, and what makes it another run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dav2 import families, layout
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.maps import Quantity
from dav2.params import Params
from dav2.training.errors import TrainingError
from dav2.training.optimizers import parameter_groups
from dav2.training.recipes import Recipe, build_recipe
from tests.training.world import COMMON, OPTIM, make_project, settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    make_project(folder)
    return folder


def recipe(root: Path, run: str, **changes: Any) -> Recipe:
    return build_recipe(Params.model_validate(settings(**changes)), run, root, families.get("depth_anything"))


def changed(kind: str, **changes: Any) -> dict[str, Any]:
    tree = settings()
    return {kind: {**tree[kind], **changes}}


def test_the_teacher_learns_from_synthetic_depth(root: Path) -> None:
    teacher = recipe(root, "teacher")
    assert [Path(part.shards).name for part in teacher.parts] == ["rooms"]
    assert teacher.run.quantity is Quantity.DISPARITY
    assert [part.split for part in teacher.validation] == ["val"]


def test_a_student_learns_from_pseudo_labels_only(root: Path) -> None:
    student = recipe(root, "student-n")
    assert [(Path(part.shards).name, Path(str(part.labels)).name) for part in student.parts] == [("snaps", "snaps")]
    assert [Path(part.shards).name for part in student.validation] == ["rooms"]


def test_a_student_may_learn_from_a_selection_of_the_labels(root: Path) -> None:
    tree = {
        "pseudo_label": {**settings()["pseudo_label"], "embedding": True},
        "selections": {"few": {"sources": ["snaps"], "budget": 3}},
        "students": {"n": {**COMMON, "sources": ["snaps"], "labels": "selections/few"}},
    }
    params = Params.model_validate(settings(**tree))
    shutil.copytree(root / "artifacts/pseudo/snaps", root / "artifacts/selections/few/snaps")
    (part,) = build_recipe(params, "student-n", root, families.get("depth_anything")).parts
    assert part.labels == str(root / "artifacts/selections/few/snaps")
    for change, message in (
        ({"selections": {}}, "no labels 'selections/few'; there are: pseudo"),
        ({"pseudo_label": settings()["pseudo_label"]}, "needs pseudo_label.embedding"),
        ({"selections": {"few": {"sources": ["rooms"], "budget": 3}}}, "snaps not in selections.few.sources"),
    ):
        with pytest.raises(ValueError, match=message):
            Params.model_validate(settings(**{**tree, **change}))


def test_a_student_may_mix_in_synthetic_images_as_the_ablation_does(root: Path) -> None:
    student = recipe(root, "student-n", students={"n": {**COMMON, "sources": ["snaps"], "synthetic": ["rooms"]}})
    assert [part.labels is None for part in student.parts] == [False, True]


def test_a_metric_model_starts_from_its_student(root: Path) -> None:
    with pytest.raises(TrainingError, match="student-n, which is not trained"):
        recipe(root, "metric-near")
    student = build("vitn")
    save_directory(student, root / "artifacts" / "models" / "student-n")
    for load, same_decoder in (("all", True), ("encoder", False)):
        near = {**settings()["metric"]["near"], "take": load}
        task = recipe(root, "metric-near", metric={"near": near}).task()
        assert torch.equal(task.model.encoder.pos_embed, student.encoder.pos_embed)
        assert torch.equal(task.model.decoder.head1.weight, student.decoder.head1.weight) is same_decoder
        assert task.model.config.max_depth == 20.0


def test_a_metric_model_begins_with_its_students_order_turned_round(root: Path) -> None:
    model = recipe(root, "metric-near").task().model.eval()
    student = load_directory(layout.model(root, "student-n")).eval()
    image = torch.randn(1, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tapped = student.encoder(image)
        raw = student.decoder(tapped, 4, 5)
        assert torch.allclose(model(image), model.config.max_depth * torch.sigmoid(-raw), rtol=1e-4)


def test_weights_of_a_recipe_are_the_same_at_every_start(root: Path) -> None:
    one, two = (recipe(root, "teacher").task().state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_fingerprint_changes_with_what_decides_the_weights_and_with_nothing_else(root: Path) -> None:
    first = recipe(root, "teacher").fingerprint()
    assert recipe(root, "teacher", **changed("teacher", checkpoint={"every_steps": 3})).fingerprint() == first
    assert recipe(root, "teacher", **changed("compute", world_size=2)).fingerprint() == first
    for change in (
        {"seed": 1},
        changed("teacher", steps=7),
        changed("teacher", optim={**OPTIM, "ema": 0.9}),
        changed("teacher", loss={"trim": 0.2}),
        changed("compute", precision="bf16"),
    ):
        assert recipe(root, "teacher", **change).fingerprint() != first


def test_other_data_makes_another_fingerprint(tmp_path: Path) -> None:
    params = make_project(tmp_path)
    tree = Params.model_validate(yaml.safe_load(params.read_text()))
    first = build_recipe(tree, "student-n", tmp_path, families.get("depth_anything")).fingerprint()
    labels = tmp_path / "artifacts" / "pseudo" / "snaps" / "manifest.parquet"
    labels.write_bytes(labels.read_bytes() + b" ")
    assert build_recipe(tree, "student-n", tmp_path, families.get("depth_anything")).fingerprint() != first


def test_a_data_set_smaller_than_a_batch_is_an_error_that_says_so(root: Path) -> None:
    with pytest.raises(TrainingError, match="12 training frames are fewer than one batch of 64"):
        recipe(root, "teacher", **changed("teacher", batch=64)).data(0, 1, 0)


def test_a_batch_that_ranks_cannot_share_is_an_error_that_says_so(root: Path) -> None:
    with pytest.raises(TrainingError, match="multiple of 3"):
        recipe(root, "teacher").data(0, 3, 0)


def test_a_student_in_another_space_than_its_teacher_is_refused(root: Path) -> None:
    students = {"n": {**COMMON, "sources": ["snaps"], "loss": {"target": "log_depth"}}}
    with pytest.raises(TrainingError, match=r"loss\.target is log_depth"):
        recipe(root, "student-n", students=students)


def test_encoder_and_decoder_have_their_rates_and_only_matrices_decay(root: Path) -> None:
    task = recipe(root, "teacher").task()
    optim = Params.model_validate(settings()).teacher.optim.model_copy(update={"weight_decay": 0.1})
    groups = parameter_groups(task, optim)
    assert [(g["part"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("encoder", 5e-4, 0.1),
        ("encoder", 5e-4, 0.0),
        ("decoder", 1e-3, 0.1),
        ("decoder", 1e-3, 0.0),
    ]
    assert all(p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"])
    grouped = {id(p) for g in groups for p in g["params"]}
    assert grouped == {id(p) for p in task.parameters() if p.requires_grad}


def test_every_trained_parameter_gets_a_gradient_and_only_those(root: Path) -> None:
    made = recipe(root, "teacher")
    task, batch = made.task(), made.data(0, 1, 0).batch(0)
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}
    task(**tensors)["loss"].backward()
    assert [name for name, p in task.named_parameters() if (p.grad is not None) != p.requires_grad] == []


def test_feature_alignment_projects_to_a_wider_frozen_encoder_that_no_checkpoint_holds(root: Path) -> None:
    made = recipe(root, "teacher", **changed("teacher", loss={"feature": 0.5}))
    reference = build("vitt").encoder
    task = RelativeTask(build("vitn"), made.settings.loss, "fp32", reference)
    batch = made.data(0, 1, 0).batch(0)
    output = task(**{name: value for name, value in batch.items() if isinstance(value, torch.Tensor)})
    output["loss"].backward()
    assert output["feature"] > 0
    assert task.projection.weight.shape == (192, 128) and task.projection.weight.grad.any()  # type: ignore[union-attr]
    assert not any(p.requires_grad or p.grad is not None for p in reference.parameters())
    assert not any("reference" in name for name in task.state_dict())
