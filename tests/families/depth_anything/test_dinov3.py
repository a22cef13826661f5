"""The DINOv3 encoder: the same features as ``transformers`` and timm from the same weights, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dav2.families.depth_anything.dinov3 import DinoV3, turn
from dav2.families.depth_anything.export import export_onnx, export_torch
from dav2.families.depth_anything.foreign import holds_dinov3, save_encoder, save_hugging_face, save_official
from dav2.families.depth_anything.loading import load_encoder
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.sizes import SIZES, get_size
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.directory import WeightsError

M = TypeVar("M", bound=nn.Module)
SHAPES = [(1, 3, 224, 224), (2, 3, 64, 192), (1, 3, 176, 48), (1, 3, 512, 384)]
TIMM = {
    "vits3": "vit_small_patch16_dinov3_qkvb",
    "vits3plus": "vit_small_plus_patch16_dinov3_qkvb",
    "vitb3": "vit_base_patch16_dinov3_qkvb",
    "vitl3": "vit_large_patch16_dinov3_qkvb",
}


def lively(module: M) -> M:
    """Random weights large enough that every layer matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name or "gamma" in name or "lambda" in name or "layer_scale" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif "bias" in name or "token" in name:
                parameter.copy_(0.1 * noise)
    return module.eval()


def theirs(size: str) -> nn.Module:
    """The network of ``transformers`` with random weights."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    network = get_size(size)
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=network.dim,
        intermediate_size=network.ffn,
        num_hidden_layers=network.depth,
        num_attention_heads=network.heads,
        hidden_act="silu" if network.swiglu else "gelu",
        use_gated_mlp=network.swiglu,
        num_register_tokens=4,
    )
    return lively(DINOv3ViTModel(config))


def features(encoder: nn.Module, image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found: list[Tensor] = encoder(image)
    return found


@pytest.mark.parametrize("size", TIMM)
def test_the_encoder_has_as_many_parameters_as_timm_s(size: str) -> None:
    import timm

    with torch.device("meta"):
        encoder, reference = DinoV3(get_size(size)), timm.create_model(TIMM[size], num_classes=0)
    ours = [p.numel() for name, p in encoder.named_parameters() if name != "mask_token"]
    assert sum(ours) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("size", ["vitt3", "vits3", "vits3plus"])
def test_features_equal_those_of_transformers(size: str, tmp_path: Path) -> None:
    reference = theirs(size)
    reference.save_pretrained(tmp_path)
    encoder, found = load_encoder(tmp_path)
    assert found == size and isinstance(encoder, DinoV3)
    for shape in SHAPES:
        image = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            expected = reference(image).last_hidden_state[:, 5:]
            states = reference(image, output_hidden_states=True).hidden_states
        ours = features(encoder, image)
        assert (ours[3] - expected).abs().max() <= 1e-5 * expected.abs().max()
        for tap, each in zip(encoder.taps[:3], ours, strict=False):
            with torch.inference_mode():
                wanted = reference.norm(states[tap + 1])[:, 5:]
            assert (each - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_every_tensor_of_a_folder_is_taken(tmp_path: Path) -> None:
    theirs("vits3plus").save_pretrained(tmp_path)
    given = load_file(tmp_path / "model.safetensors")
    taken = load_encoder(tmp_path)[0].state_dict()
    assert sum(tensor.numel() for tensor in taken.values()) == sum(tensor.numel() for tensor in given.values())
    joined = torch.cat([given[f"layer.3.attention.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(taken["blocks.3.attn.qkv.weight"], joined)
    assert torch.equal(taken["blocks.3.attn.v_bias"], given["layer.3.attention.v_proj.bias"])
    gate, value = (given[f"layer.3.mlp.{part}_proj.weight"] for part in ("gate", "up"))
    assert torch.equal(taken["blocks.3.mlp.fc1.weight"], torch.cat([gate, value]))
    assert torch.equal(taken["mask_token"], given["embeddings.mask_token"][0])


@pytest.mark.parametrize("size", ["vits3", "vits3plus"])
def test_timm_gives_the_same_features_and_takes_our_file(size: str, tmp_path: Path) -> None:
    import timm

    reference = lively(timm.create_model(TIMM[size], num_classes=0))
    save_file(reference.state_dict(), tmp_path / "timm.safetensors")
    encoder, found = load_encoder(tmp_path / "timm.safetensors")
    assert found == size
    image = torch.randn(1, 3, 96, 160)
    with torch.inference_mode():
        expected = reference.forward_features(image)[:, 5:]
    assert (features(encoder, image)[3] - expected).abs().max() <= 1e-5 * expected.abs().max()
    model = build(size)
    save_encoder(model, tmp_path / "ours.safetensors")
    reference.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    again = load_encoder(tmp_path / "ours.safetensors")[0].state_dict()
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(again[name], tensor.half().float()), name


def test_files_of_the_original_code_are_understood_and_their_masked_bias_is_left_out(tmp_path: Path) -> None:
    encoder = lively(DinoV3(get_size("vitt3")))
    state = {}
    for name, tensor in encoder.state_dict().items():
        name = name.replace("reg_token", "storage_tokens")
        if name.endswith("q_bias"):
            value = encoder.state_dict()[name.replace("q_bias", "v_bias")]
            state[name.replace("q_bias", "qkv.bias")] = torch.cat([tensor, torch.full_like(tensor, 9.0), value])
            state[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(tensor))
        elif not name.endswith("v_bias"):
            state[name] = tensor
    state["rope_embed.periods"] = torch.ones(16)
    torch.save(state, tmp_path / "dinov3_vitt16.pth")
    again = load_encoder(tmp_path / "dinov3_vitt16.pth")[0].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in encoder.state_dict().items())


def test_sizes_of_timm_without_biases_get_zeros(tmp_path: Path) -> None:
    state = {n: t for n, t in DinoV3(get_size("vitt3")).state_dict().items() if "_bias" not in n and n != "mask_token"}
    save_file(state, tmp_path / "plain.safetensors")
    assert holds_dinov3(tmp_path / "plain.safetensors")
    taken = load_encoder(tmp_path / "plain.safetensors")[0].state_dict()
    assert not taken["blocks.7.attn.q_bias"].any() and not taken["blocks.7.attn.v_bias"].any()


def test_another_network_is_refused_by_name(tmp_path: Path) -> None:
    theirs("vitt3").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"rope_theta": 100.0', '"rope_theta": 10000.0'))
    with pytest.raises(WeightsError, match=r"rope_theta is 10000\.0, where DINOv3 of this size has 100\.0"):
        load_encoder(tmp_path)
    config.write_text(text)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if "layer.7." not in name}, tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsError, match=r"missing: blocks\.7\."):
        load_encoder(tmp_path)
    huge = {"cls_token": torch.zeros(1, 1, 1280), "reg_token": torch.zeros(1, 4, 1280)}
    save_file(huge, tmp_path / "huge.safetensors")
    with pytest.raises(WeightsError, match=r"no size that is built here; there are: vitt3 \(192 × 12\), vits3"):
        load_encoder(tmp_path / "huge.safetensors")


def test_positions_are_counted_over_the_picture_and_turn_no_other_token() -> None:
    encoder = DinoV3(get_size("vitt3"))
    cos, sin = encoder.position(4, 6)
    assert cos.shape == (5 + 24, 64)
    assert (cos[:5] == 1).all() and (sin[:5] == 0).all()
    angle = torch.atan2(sin, cos)[5:].reshape(4, 6, 64)
    # The fastest channel turns once around for every unit, of the two that the picture has: rows, then columns.
    down = torch.tensor([-0.75, -0.25, 0.25, 0.75]) * 2 * torch.pi
    assert torch.allclose(torch.cos(angle[:, 0, 0]), torch.cos(down), atol=1e-5)
    across = (torch.arange(6) + 0.5) / 3 - 1
    assert torch.allclose(torch.sin(angle[0, :, 16]), torch.sin(across * 2 * torch.pi), atol=1e-5)
    slowest = across * 2 * torch.pi * 100 ** (-15 / 16)
    assert torch.allclose(angle[0, :, 31], slowest, atol=1e-5)
    q = torch.randn(2, 3, 29, 64)
    turned = turn(q, cos, sin)
    assert torch.equal(turned[:, :, :5], q[:, :, :5])
    assert torch.allclose(turned.norm(dim=-1), q.norm(dim=-1), atol=1e-4)


@pytest.fixture(scope="module")
def small() -> DepthAnything:
    torch.manual_seed(0)
    model = build("vitt3", 20.0)
    lively(model.encoder)
    return model.eval()


def test_a_model_directory_comes_back_the_same(small: DepthAnything, tmp_path: Path) -> None:
    save_directory(small, tmp_path)
    again = load_directory(tmp_path)
    assert again.config == small.config and again.config.patch == 16
    assert all(torch.equal(x, y) for x, y in zip(small.state_dict().values(), again.state_dict().values(), strict=True))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("vitt3", "vits3"))
    with pytest.raises(WeightsError, match="weights of size vitt3, not vits3"):
        load_directory(tmp_path)


def test_exports_predict_what_their_source_does(small: DepthAnything, tmp_path: Path) -> None:
    assert export_onnx(small, tmp_path / "a.onnx") <= 1e-3
    assert export_onnx(small, tmp_path / "b.onnx", torch.float16) <= 3e-2
    assert export_torch(small, tmp_path / "a.pt2") <= 1e-3
    for write in (save_official, save_hugging_face):
        with pytest.raises(WeightsError, match="none reads vitt3 in this form; export it as onnx, torch or encoder"):
            write(small, tmp_path / "other")


def test_training_and_inference_attention_agree_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = build("vitt3").train()
    image = torch.randn(1, 3, 64, 96)
    loss = model(image).mean()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert model.encoder.blocks[0].attn.q_bias.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.allclose(model.eval()(image).mean(), loss, atol=1e-5)


def test_sides_are_multiples_of_its_patch(small: DepthAnything) -> None:
    with pytest.raises(ValueError, match="518 is not a multiple of 16; the nearest are 512 and 528"):
        small.infer_image(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy(), 518)
    with pytest.raises(ValueError, match="both sides must be multiples of 16"):
        small(torch.zeros(1, 3, 98, 98))
    assert small.network_shape(480, 640, 96) == (96, 128)
    assert {name for name, size in SIZES.items() if size.patch == 16} == {n for n in SIZES if "3" in n}
