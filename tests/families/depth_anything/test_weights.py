"""Weights in every naming scheme, both ways, and the errors of files that cannot be used."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dav2.families.depth_anything.foreign import load_official, save_encoder, save_hugging_face, save_official
from dav2.families.depth_anything.loading import load_encoder
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.sizes import SIZES
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.directory import WeightsError, weights_digest
from dav2.families.loading import load
from dav2.layout import WEIGHTS


@pytest.fixture(scope="module")
def model() -> DepthAnything:
    torch.manual_seed(0)
    return build("vitn").eval()


def same(a: DepthAnything, b: DepthAnything) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_model_directory_comes_back_the_same(model: DepthAnything, tmp_path: Path) -> None:
    save_directory(model, tmp_path, "# card", {"parents": ["teacher"]})
    again = load_directory(tmp_path)
    assert same(model, again) and again.config == model.config
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.md", "config.json", WEIGHTS]
    frozen = [name for name, parameter in again.named_parameters() if not parameter.requires_grad]
    assert frozen == [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def test_digest_tells_ranges_apart_and_is_stable(model: DepthAnything, tmp_path: Path) -> None:
    metric = {}
    for metres in (20.0, 80.0):
        other = build("vitn", metres)
        other.load_state_dict(model.state_dict())
        metric[metres] = weights_digest(save_directory(other, tmp_path / str(metres)))
    assert metric[20.0] != metric[80.0]
    assert weights_digest(save_directory(load_directory(tmp_path / "20.0"), tmp_path / "again")) == metric[20.0]


def test_official_names_are_those_published(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = build("vits").state_dict()
    from dav2.families.depth_anything.names import HUGGING_FACE, OFFICIAL, table

    names = table(state, OFFICIAL, gated=False)
    assert names["encoder.blocks.3.ls1.gamma"] == "pretrained.blocks.3.ls1.gamma"
    assert names["decoder.lateral.2.weight"] == "depth_head.scratch.layer3_rn.weight"
    assert names["decoder.fusion.3.lateral_unit.conv1.bias"] == "depth_head.scratch.refinenet4.resConfUnit1.conv1.bias"
    assert names["decoder.fusion.0.out.weight"] == "depth_head.scratch.refinenet1.out_conv.weight"
    assert names["decoder.head3.bias"] == "depth_head.scratch.output_conv2.2.bias"
    theirs = table(state, HUGGING_FACE, gated=False)
    assert theirs["decoder.fusion.3.unit.conv2.bias"] == "neck.fusion_stage.layers.0.residual_layer2.convolution2.bias"
    assert len(set(names.values())) == len(names) == 239


def test_official_file_comes_back_the_same(model: DepthAnything, tmp_path: Path) -> None:
    file = tmp_path / "depth_anything_v2_vitn.pth"
    save_official(model, file)
    assert same(model, load(file, "cpu", torch.float32))


def test_gated_encoder_has_the_published_names(tmp_path: Path) -> None:
    from dav2.families.depth_anything.names import OFFICIAL, table

    with torch.device("meta"):
        names = table(build("vitg").state_dict(), OFFICIAL, gated=True)
    assert names["encoder.blocks.0.mlp.fc1.weight"] == "pretrained.blocks.0.mlp.w12.weight"
    assert names["encoder.blocks.0.mlp.fc2.bias"] == "pretrained.blocks.0.mlp.w3.bias"


def test_published_metric_file_gets_its_range_from_its_name(model: DepthAnything, tmp_path: Path) -> None:
    file = tmp_path / "depth_anything_v2_metric_vkitti_vitn.pth"
    save_official(model, file)
    assert load(file).config.max_depth == 80.0


def test_trainer_checkpoint_needs_its_range(model: DepthAnything, tmp_path: Path) -> None:
    save_official(model, tmp_path / "flat.pth")
    save_official(model, tmp_path / "flat")
    assert (tmp_path / "flat").read_bytes() == (tmp_path / "flat.pth").read_bytes(), "no name of its own in the file"
    state = torch.load(tmp_path / "flat.pth", weights_only=True)
    file = tmp_path / "latest.pth"
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3, "previous_best": {"d1": 0.5}}, file)
    with pytest.raises(WeightsError, match="max_depth"):
        load(file)
    loaded = load(file, "cpu", torch.float32, max_depth=20.0)
    assert loaded.config.max_depth == 20.0 and same(model, loaded)


def test_hugging_face_folder_comes_back_the_same(model: DepthAnything, tmp_path: Path) -> None:
    save_hugging_face(model, tmp_path)
    assert same(model, load(tmp_path, "cpu", torch.float32))


@pytest.mark.parametrize("kind", ["hub", "timm", "model"])
def test_encoder_alone_loads(model: DepthAnything, kind: str, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    if kind == "timm":
        del state["mask_token"]
        save_file(state, tmp_path / "timm.safetensors")
        source = tmp_path / "timm.safetensors"
    elif kind == "hub":
        torch.save(state, tmp_path / "dinov2.pth")
        source = tmp_path / "dinov2.pth"
    else:
        source = save_directory(model, tmp_path)
    encoder, size = load_encoder(source)
    assert size == "vitn"
    assert torch.equal(encoder.blocks[5].attn.qkv.weight, model.encoder.blocks[5].attn.qkv.weight)


def test_an_exported_encoder_is_what_other_models_start_from(model: DepthAnything, tmp_path: Path) -> None:
    save_encoder(model, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")[0].state_dict()
    assert again.keys() == model.encoder.state_dict().keys()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(again[name], tensor.half().float()), name


def test_timm_model_gives_the_same_features(model: DepthAnything) -> None:
    from timm.models.vision_transformer import VisionTransformer

    size = SIZES["vitn"]
    theirs = VisionTransformer(
        img_size=518, patch_size=14, num_classes=0, embed_dim=size.dim, depth=size.depth, num_heads=size.heads,
        init_values=1.0,
    ).eval()  # fmt: skip
    state = model.encoder.state_dict()
    theirs.load_state_dict({name: tensor for name, tensor in state.items() if name != "mask_token"})
    image = torch.randn(1, 3, 518, 518)
    with torch.inference_mode():
        reference = theirs.forward_features(image)[:, 1:]
        assert torch.allclose(model.encoder(image)[3], reference, atol=1e-4)


def test_file_that_hides_a_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    file = tmp_path / "evil.pth"
    torch.save({"model": Evil()}, file)
    with pytest.raises(WeightsError, match=r"evil\.pth is refused"):
        load(file)
    assert not marker.exists()


def test_other_files_are_named(tmp_path: Path, model: DepthAnything) -> None:
    for name, content in {"empty.pth": b"", "text.pth": b"hello", "list.pth": pickle.dumps([1, 2])}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            load(tmp_path / name)
    with pytest.raises(WeightsError, match="no model at"):
        load(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="not a model directory"):
        load(tmp_path)


def test_truncated_safetensors_is_named(tmp_path: Path, model: DepthAnything) -> None:
    save_directory(model, tmp_path)
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=WEIGHTS):
        load(tmp_path)


def test_weights_of_another_size_name_that_size(tmp_path: Path, model: DepthAnything) -> None:
    save_directory(model, tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("vitn", "vits"))
    with pytest.raises(WeightsError, match="weights of size vitn, not vits"):
        load(tmp_path)


def test_missing_and_unexpected_names_are_listed(tmp_path: Path, model: DepthAnything) -> None:
    save_official(model, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    state["depth_head.extra"] = state.pop("depth_head.scratch.layer1_rn.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load_official(tmp_path / "a.pth")
    assert "missing: decoder.lateral.0.weight" in str(caught.value)
    assert "unexpected: depth_head.extra" in str(caught.value)


def test_nan_in_weights_is_named(tmp_path: Path, model: DepthAnything) -> None:
    broken = build("vitn")
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.decoder.head1.weight[0, 0, 0, 0] = float("nan")
    save_directory(broken, tmp_path)
    with pytest.raises(WeightsError, match=r"decoder\.head1\.weight.*not finite"):
        load(tmp_path)
