"""The packed form of inference in bfloat16 and in float32 against the plain network in float32."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dav2.families.depth_anything import packed
from dav2.families.depth_anything.dinov2 import DinoV2
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.packed import PackedEncoder, packed_network, serves
from dav2.families.depth_anything.packed_blocks import FloatBlock, PackedBlock
from dav2.families.depth_anything.sizes import SIZES

SHAPES = [(1, 5, 7), (2, 7, 5), (1, 1, 1), (1, 9, 9)]
"""Batch, and rows and columns of patches."""
needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 for oneDNN"
)
precisions = pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="the packed form is for AVX2 and AVX-512"
)


@pytest.fixture(autouse=True)
def _small_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for every size is shown at sizes that cost little."""
    monkeypatch.setattr(packed, "LEAST_PATCHES", 1)


def lively(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that make every part matter: LayerScale and norms away from 1, attention away from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gamma" in name or "norm" in name:
                parameter.add_(0.3 * noise)
            elif "qkv" in name or "bias" in name:
                parameter.add_(0.1 * noise)
    return module.eval()


def pixels(model: torch.nn.Module, shape: tuple[int, ...]) -> Tensor:
    assert isinstance(model, DepthAnything)
    batch, rows, columns = shape
    return torch.randn(batch, 3, rows * model.config.patch, columns * model.config.patch)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.to(expected.dtype) - expected).abs().mean() / expected.abs().mean())


@pytest.mark.parametrize(("size", "max_depth"), [("vitn", None), ("vits", 20.0), ("vitt3", None)])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_is_the_plain_network_up_to_rounding(
    size: str, max_depth: float | None, shape: tuple[int, ...]
) -> None:
    """Judged by float64, from which the packed form may be as far as float32 takes the plain network."""
    torch.manual_seed(0)
    model = lively(build(size, max_depth))
    assert isinstance(model, DepthAnything)
    exact = copy.deepcopy(model).double()
    image = pixels(model, shape)
    with torch.inference_mode():
        assert serves(model, image, model.config.patch)
        found, plain = model(image), model.forward_features(image)[0]
        expected = exact.forward_features(image.double())[0]
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert expected.std() > 1e-3 * expected.mean()
    largest = expected.abs().max()
    assert (found - expected).abs().max() <= max(2 * (plain - expected).abs().max(), 1e-6 * largest)


def test_float32_attention_needs_no_bias_for_keys_and_hands_that_of_values_on() -> None:
    """Biases far larger than trained ones, which would show if one were left out that matters."""
    torch.manual_seed(0)
    encoder = lively(DinoV2(SIZES["vitn"])).double()
    block = encoder.blocks[0]
    with torch.no_grad():
        block.attn.qkv.bias.normal_(std=3.0)
    x = torch.randn(2, 26, SIZES["vitn"].dim)
    with torch.inference_mode():
        expected = block(x.double())
        found = FloatBlock(block.float())(x.clone(), 26)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("input_shape", [(1, 3, 70, 98), (2, 3, 42, 42)])
def test_leaves_its_input_alone_and_says_the_same_again(input_shape: tuple[int, ...]) -> None:
    """Float32 layers write over what they are given, which must never reach past one call."""
    model = lively(build("vitn"))
    image = torch.randn(input_shape)
    kept = image.clone()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        assert torch.equal(model(image), model(image))
    assert torch.equal(image, kept)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@needs_bfloat16
@pytest.mark.parametrize(("size", "max_depth"), [("vitn", None), ("vits", 20.0), ("vitt3", None)])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_is_as_close_to_float32_as_the_plain_network(
    size: str, max_depth: float | None, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    exact = lively(build(size, max_depth))
    low = copy.deepcopy(exact).bfloat16()
    image = pixels(exact, shape)
    assert isinstance(exact, DepthAnything) and isinstance(low, DepthAnything)
    with torch.inference_mode():
        expected = exact.forward_features(image)[0]
        fast = low(image.bfloat16())
        plain = low.forward_features(image.bfloat16())[0]
    assert fast.dtype == torch.float32 and fast.shape == expected.shape
    assert not torch.equal(fast, plain)
    assert relative(fast, expected) < max(1.2 * relative(plain, expected), 2e-3)


@precisions
def test_gated_feed_forward_of_the_giant_size(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    size = replace(SIZES["vitn"], swiglu=True, ffn=320)
    encoder = lively(DinoV2(size))
    assert isinstance(encoder, DinoV2)
    exact, low = copy.deepcopy(encoder).double(), encoder.to(dtype)
    image = torch.randn(1, 3, 70, 84).to(dtype)
    with torch.inference_mode():
        for found, plain, expected in zip(PackedEncoder(low)(image), low(image), exact(image.double()), strict=True):
            assert relative(found, expected) < 1.2 * relative(plain, expected)


@needs_bfloat16
@pytest.mark.parametrize("offset", [-60.0, -14.0, -5.0, 0.0, 5.0, 60.0])
@pytest.mark.parametrize("count", [26, 31, 32, 41])
def test_padded_keys_take_no_share_wherever_the_scores_lie(offset: float, count: int) -> None:
    """Scores of −60 leave the padded keys all but alone in the denominator; they must not be seen even then."""
    encoder = DinoV2(SIZES["vitn"]).bfloat16()
    block = PackedBlock(encoder.blocks[0])  # type: ignore[arg-type]
    heads, width = block.heads, block.width
    generator = torch.Generator().manual_seed(count)
    padded = count + -count % PackedBlock.step
    qkv = torch.randn(2, padded, 3, heads, width, generator=generator)
    qkv[:, :, :2] *= 0.5
    # One constant component in every query and key moves all scores by the offset.
    qkv[:, :, 0, :, 0], qkv[:, :, 1, :, 0] = 4.0, offset * width**0.5 / 4.0
    low = qkv.bfloat16()
    q, k, v = low[:, :count].double().permute(2, 0, 3, 1, 4)
    expected = ((q @ k.mT) * width**-0.5).softmax(-1) @ v
    with torch.inference_mode():
        found = block.attend(low.reshape(2, padded, -1).clone(), count)
    found = found[:, :count].reshape(2, count, heads, width).permute(0, 2, 1, 3)
    assert (found.double() - expected).abs().max() < 0.02 * expected.abs().max()


@precisions
def test_follows_the_weights(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = lively(build("vitn")).to(dtype)
    assert isinstance(model, DepthAnything)
    image = torch.randn(1, 3, 70, 70).to(dtype)
    with torch.inference_mode():
        before = model(image)
        assert torch.equal(model(image), before)
    other = lively(build("vitn"), seed=1).to(dtype)
    model.load_state_dict(other.state_dict())
    with torch.inference_mode():
        after = model(image)
        assert not torch.equal(after, before)
        assert torch.equal(after, other(image))
    with torch.no_grad():
        model.decoder.head1.weight.mul_(0.5)
        assert not torch.equal(model(image), after)


def test_is_made_once_and_goes_with_its_model() -> None:
    model = build("vitn").eval()
    first = packed_network(model, model.encoder, model.decoder, 84)
    assert packed_network(model, model.encoder, model.decoder, 84) is first
    gone = weakref.ref(first)
    del first, model
    gc.collect()
    assert gone() is None


@precisions
def test_serves_inference_in_one_precision_only(dtype: torch.dtype) -> None:
    model, image = build("vitn").eval().to(dtype), torch.zeros(1, 3, 14, 14, dtype=dtype)
    assert not serves(model, image, 14)
    with torch.no_grad():
        assert serves(model, image, 14)
        assert not serves(model, image.double(), 14)
        assert not serves(copy.deepcopy(model).double(), image, 14)
        assert not serves(copy.deepcopy(model).double(), image.double(), 14)
        assert not serves(model.train(), image, 14)
        model.eval()
        with torch.autocast("cpu", torch.bfloat16):
            assert not serves(model, image, 14)
        with pytest.raises(ValueError, match="multiples of 14"):
            model(torch.zeros(1, 3, 14, 15, dtype=dtype))


def test_small_images_take_the_plain_network_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LEAST_PATCHES", 4)
    model = build("vitn").eval()
    with torch.no_grad():
        assert serves(model, torch.zeros(1, 3, 28, 28), 14)
        assert not serves(model, torch.zeros(4, 3, 28, 14), 14)
