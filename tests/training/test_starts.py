"""What runs begin from: models made elsewhere and models of other runs, whole, in part, and refused."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dav2 import families, layout
from dav2.documents import Origin
from dav2.families.depth_anything.foreign import save_hugging_face, save_official
from dav2.families.depth_anything.loading import load_encoder
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.directory import WeightsError
from dav2.families.outside import take_in, use_as_teacher
from dav2.licences import judge
from dav2.maps import Quantity
from dav2.params import OutsideParams, Params, load
from dav2.tracking.licences import licences_of_run
from dav2.training.errors import TrainingError
from dav2.training.recipes import Recipe, build_recipe
from tests.training.processes import run_to_end
from tests.training.world import COMMON, make_project, settings

DRAWN = ("head3.",)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


def model(seed: int, **config: Any) -> DepthAnything:
    torch.manual_seed(seed)
    return build("vitn", **config).eval()


def outside(**values: Any) -> OutsideParams:
    return OutsideParams.model_validate(values)


def begun(root: Path, kind: str, start: str, **recipe: Any) -> DepthAnything:
    """The network of a run that begins from ``start``."""
    name = {"teacher": "teacher", "students": "student-n", "metric": "metric-near"}[kind]
    return build_run(root, name, kind, {"start": start, **recipe}).task().model  # type: ignore[return-value]


def build_run(root: Path, name: str, kind: str, recipe: dict[str, Any], **sections: Any) -> Recipe:
    tree = settings(outside={"a": {"model": "a.pth"}}, **sections)
    changed = tree[kind] if kind == "teacher" else next(iter(tree[kind].values()))
    changed.update(recipe)
    return build_recipe(Params.model_validate(tree), name, root, families.get("depth_anything"))


def same(part: Any, other: Any, but: tuple[str, ...] = ()) -> bool:
    ours, theirs = part.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours if not name.startswith(but or ("-",)))


def test_every_published_form_is_taken_in_with_its_digest_and_licence(root: Path) -> None:
    published = model(3)
    save_official(published, root / "depth_anything_v2_vitn.pth")
    save_hugging_face(published, root / "hf")
    (root / "hf" / "README.md").write_text("---\nlibrary_name: transformers\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    save_directory(published, root / "ours")
    (root / "LICENSE").write_text("Do what is right.\n")
    forms = {
        "pth": outside(model="depth_anything_v2_vitn.pth", licence="Apache-2.0", licence_file="LICENSE"),
        "hf": outside(model="hf"),
        "ours": outside(model="ours"),
    }
    origins = {name: take_in(name, form, root) for name, form in forms.items()}
    assert [origin.licence for origin in origins.values()] == ["Apache-2.0", "cc-by-nc-4.0", None]
    assert (layout.outside(root, "pth") / "licence.txt").read_text() == "Do what is right.\n"
    # The same weights, wherever they come from.
    assert len({origin.weights_sha256 for origin in origins.values()}) == 1
    assert len({origin.source_sha256 for origin in origins.values()}) == 3
    for name, origin in origins.items():
        assert Origin.read(layout.outside(root, name) / layout.ORIGIN) == origin
        assert same(families.get(origin.family).load(layout.outside(root, name)), published)
    assert take_in("pth", forms["pth"], root) == origins["pth"]


@pytest.mark.parametrize("form", ["timm", "model"])
def test_an_encoder_is_taken_alone(root: Path, form: str) -> None:
    published = model(4)
    if form == "timm":
        state = {name: value for name, value in published.encoder.state_dict().items() if name != "mask_token"}
        save_file(state, root / "timm.safetensors")
        source = "timm.safetensors"
    else:
        save_directory(published, root / "whole")
        source = "whole"
    origin = take_in("a", outside(encoder=source), root)
    assert origin.kind == "encoder"
    student = begun(root, "students", "outside/a")
    assert same(student.encoder, published.encoder)
    torch.manual_seed(0)
    assert same(student.decoder, build("vitn").decoder)


def dinov3(folder: Path) -> None:
    """A DINOv3 encoder with random weights as ``transformers`` writes it, with the card of its page."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(12)
    config = DINOv3ViTConfig(hidden_size=192, intermediate_size=768, num_attention_heads=3, num_register_tokens=4)
    DINOv3ViTModel(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\n# DINOv3\n")


def test_a_dinov3_encoder_is_taken_with_the_text_of_its_licence_or_not_at_all(root: Path) -> None:
    folder = root / "dinov3"
    dinov3(folder)
    before = take_in("kept3", outside(encoder=str(save_directory(model(4), root / "whole3"))), root)
    with pytest.raises(WeightsError, match=r"dinov3 is under the DINOv3 License, whose text has to go with"):
        take_in("kept3", outside(encoder="dinov3"), root)
    assert Origin.read(layout.outside(root, "kept3") / layout.ORIGIN) == before
    (folder / "LICENSE.md").write_text("Terms of their own.\n")
    origin = take_in("a", outside(encoder="dinov3"), root)
    assert origin.licence == "dinov3-license"
    assert origin.licence_sha256 == hashlib.sha256(b"Terms of their own.\n").hexdigest()
    assert (layout.outside(root, "a") / "licence.txt").read_text() == "Terms of their own.\n"
    (folder / "LICENSE.md").rename(root / "dinov3.txt")
    assert take_in("a", outside(encoder="dinov3", licence_file="dinov3.txt"), root).licence_sha256
    (folder / "README.md").unlink()
    assert take_in("a", outside(encoder="dinov3", licence_file="dinov3.txt"), root).licence == "DINOv3 License"
    assert judge("dinov3-license") == judge("DINOv3 License") != judge(None)


def test_a_run_begins_from_a_dinov3_encoder_and_learns(tmp_path: Path) -> None:
    near = {**COMMON, "sources": ["rooms"], "max_depth": 20.0, "size": "vitt3", "crop": 32, "start": "outside/a"}
    params = make_project(tmp_path, outside={"a": {"encoder": "dinov3"}}, metric={"near": near})
    dinov3(tmp_path / "dinov3")
    (tmp_path / "dinov3" / "LICENCE").write_text("Terms.\n")
    take_in("a", outside(encoder="dinov3"), tmp_path)
    task = build_recipe(load(params), "metric-near", tmp_path, families.get("depth_anything")).task()
    given = load_encoder(tmp_path / "dinov3")[0]
    assert task.began == "encoder taken, decoder at random" and same(task.model.encoder, given)
    run_to_end(params, "metric-near")
    learned = load_directory(layout.model(tmp_path, "metric-near"))
    assert learned.config.size == "vitt3" and learned.config.max_depth == 20.0
    for name in ("blocks.0.attn.q_bias", "blocks.5.attn.qkv.weight", "reg_token", "blocks.11.ls2.gamma"):
        assert not torch.equal(learned.encoder.state_dict()[name], given.state_dict()[name]), name
    lines = licences_of_run("metric-near", tmp_path, load(params), lambda uri: None)
    assert [(line.name, line.licence, line.commercial) for line in lines if line.kind == "model"] == [
        ("a", "dinov3-license", "unknown")
    ]


def test_features_are_compared_patch_by_patch(root: Path) -> None:
    dinov3(root / "dinov3-c")
    loss = {"feature": 1.0, "feature_encoder": "dinov3-c"}
    other = {"near": {**COMMON, "sources": ["rooms"], "max_depth": 20.0, "start": "random"}}
    with pytest.raises(WeightsError, match="under the DINOv3 License"):
        build_run(root, "student-n", "students", {"loss": loss}).task()
    (root / "dinov3-c" / "LICENSE").write_text("Terms.\n")
    with pytest.raises(WeightsError, match="patches of 16 pixels, the run's encoder of 14"):
        build_run(root, "student-n", "students", {"loss": loss}).task()
    changed = {"loss": loss, "crop": 64}
    task = build_run(root, "student-n", "students", {**changed, "size": "vits3"}, metric=other).task()
    assert isinstance(task, RelativeTask) and task.projection.weight.shape == (192, 384)


def test_a_student_begins_from_all_of_a_model_or_from_its_encoder(root: Path) -> None:
    published = model(5)
    save_official(published, root / "a.pth")
    take_in("a", outside(model="a.pth"), root)
    assert same(begun(root, "students", "outside/a"), published)
    part = begun(root, "students", "outside/a", take="encoder")
    assert same(part.encoder, published.encoder)
    assert not torch.equal(part.decoder.head1.weight, published.decoder.head1.weight)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({}, "students", "all taken"),
        ({"max_depth": 80.0}, "students", "all taken but the last layer, which predicted metre and is made anew"),
        ({}, "metric", "all taken, the last layer turned from relative disparity to metres"),
        ({"max_depth": 20.0}, "metric", "all taken"),
        ({"max_depth": 80.0}, "metric", "all taken, the head moved from 80 to 20 metres"),
        ({"target": Quantity.LOG_DEPTH}, "students", "all taken, though it predicts relative log depth"),
    ],
)
def test_a_head_of_another_kind_is_turned_moved_or_made_anew(
    root: Path, given: dict[str, Any], kind: str, said: str
) -> None:
    published = model(6, **given)
    save_directory(published, root / "b")
    take_in("a", outside(model="b"), root)
    name = {"students": "student-n", "metric": "metric-near"}[kind]
    task = build_run(root, name, kind, {"start": "outside/a"}).task()
    assert task.began == said
    ours, theirs = task.model.decoder, published.decoder
    assert same(ours, theirs, but=DRAWN)
    if "turned" in said:
        assert torch.equal(ours.head3.weight, -theirs.head3.weight)
    elif "moved" in said:
        assert torch.allclose(ours.head3.bias, theirs.head3.bias + math.log(4))
    elif "anew" in said:
        assert not torch.equal(ours.head3.weight, theirs.head3.weight)
    else:
        assert same(ours, theirs)


def test_what_a_run_begins_from_is_part_of_its_fingerprint(root: Path) -> None:
    save_directory(model(7), root / "c")
    take_in("a", outside(model="c"), root)
    first = build_run(root, "student-n", "students", {"start": "outside/a"})
    random = build_run(root, "student-n", "students", {})
    save_directory(model(8), root / "c")
    take_in("a", outside(model="c"), root)
    second = build_run(root, "student-n", "students", {"start": "outside/a"})
    assert first.start is not None and second.start is not None
    assert first.start.digest != second.start.digest
    assert len({each.fingerprint() for each in (first, random, second)}) == 2 + 1


def test_weights_of_another_size_are_named(root: Path) -> None:
    torch.manual_seed(0)
    save_directory(build("vitt"), root / "t")
    take_in("a", outside(model="t"), root)
    with pytest.raises(WeightsError, match=r"outside/a is of size vitt, but the run trains vitn"):
        build_run(root, "student-n", "students", {"start": "outside/a"}).task()


def test_a_model_that_is_not_taken_in_yet_says_how(root: Path) -> None:
    tree = settings(outside={"never": {"model": "never.pth"}})
    tree["students"]["n"]["start"] = "outside/never"
    with pytest.raises(TrainingError, match=r"outside\.never is not taken in, and student-n starts from it"):
        build_recipe(Params.model_validate(tree), "student-n", root, families.get("depth_anything"))


@pytest.mark.parametrize(
    ("settings_of", "said"),
    [
        ({"model": "missing.pth"}, r"no model at .*missing\.pth"),
        ({"encoder": "missing.pth"}, r"no model at .*missing\.pth"),
        ({"model": "ours", "licence_file": "NO"}, r"licence_file .*NO cannot be read: no such file"),
        ({"encoder": "empty"}, "empty"),
    ],
)
def test_what_cannot_be_taken_in_leaves_what_was_there(root: Path, settings_of: dict[str, Any], said: str) -> None:
    save_directory(model(9), root / "ours")
    (root / "empty").mkdir(exist_ok=True)
    before = take_in("kept", outside(model="ours"), root)
    with pytest.raises(WeightsError, match=said):
        take_in("kept", outside(**settings_of), root)
    assert Origin.read(layout.outside(root, "kept") / layout.ORIGIN) == before
    assert not list((root / layout.OUTSIDE).glob(".*"))


def test_a_named_teacher_stands_where_a_trained_one_did(root: Path) -> None:
    save_directory(model(10), root / "d")
    trained = layout.training(root, "teacher")
    trained.mkdir(parents=True)
    (trained / "run.json").write_text("{}")
    with pytest.raises(WeightsError, match="'dvc repro outside@d' takes it in"):
        use_as_teacher("d", root)
    assert (trained / "run.json").exists()
    origin = take_in("d", outside(model="d"), root)
    folder = use_as_teacher("d", root)
    assert Origin.read(folder / layout.ORIGIN) == origin
    assert not (trained / "run.json").exists()


def test_labels_of_a_named_teacher_decide_what_a_student_learns(root: Path) -> None:
    save_directory(model(11, target=Quantity.LOG_DEPTH), root / "e")
    take_in("a", outside(model="e"), root)
    students = {"n": {**COMMON, "sources": ["snaps"]}}
    tree = {**settings(outside={"a": {"model": "e"}}, students=students), "teacher": {"use": "outside/a"}}
    with pytest.raises(TrainingError, match=r"student-n: loss\.target is disparity, but its teacher gives .*log_depth"):
        build_recipe(Params.model_validate(tree), "student-n", root, families.get("depth_anything"))
    # Metres are stored as disparity.
    save_directory(model(11, max_depth=20.0), root / "e")
    take_in("a", outside(model="e"), root)
    recipe = build_recipe(Params.model_validate(tree), "student-n", root, families.get("depth_anything"))
    assert json.loads(json.dumps(recipe.origins()))["start"] is None
