"""The packed form of inference in bfloat16 against the plain network in float32."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dav2.models import packed
from dav2.models.depth_anything import DepthAnything, build
from dav2.models.dinov2 import DinoV2
from dav2.models.packed import PackedBlock, PackedEncoder, packed_network, serves
from dav2.models.sizes import SIZES

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16 for oneDNN"
)


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


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).abs().mean() / expected.abs().mean())


@pytest.mark.parametrize(("size", "max_depth"), [("vitn", None), ("vits", 20.0)])
@pytest.mark.parametrize("shape", [(1, 3, 70, 98), (2, 3, 98, 70), (1, 3, 14, 14), (1, 3, 126, 126)])
def test_is_as_close_to_float32_as_the_plain_network_in_bfloat16(
    size: str, max_depth: float | None, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    exact = lively(build(size, max_depth))
    low = copy.deepcopy(exact).bfloat16()
    image = torch.randn(shape)
    with torch.inference_mode():
        expected = exact(image)
        fast = low(image.bfloat16())
        assert isinstance(low, DepthAnything)
        plain = low.forward_features(image.bfloat16())[0]
    assert fast.dtype == torch.float32 and fast.shape == expected.shape
    assert not torch.equal(fast, plain)
    assert relative(fast, expected) < max(1.2 * relative(plain, expected), 2e-3)


def test_gated_feed_forward_of_the_giant_size() -> None:
    torch.manual_seed(0)
    size = replace(SIZES["vitn"], swiglu=True, ffn=320)
    exact = lively(DinoV2(size))
    low = copy.deepcopy(exact).bfloat16()
    assert isinstance(low, DinoV2)
    image = torch.randn(1, 3, 70, 84)
    with torch.inference_mode():
        for found, plain, expected in zip(
            PackedEncoder(low)(image.bfloat16()), low(image.bfloat16()), exact(image), strict=True
        ):
            assert relative(found, expected) < 1.2 * relative(plain, expected)


@pytest.mark.parametrize("offset", [-60.0, -14.0, -5.0, 0.0, 5.0, 60.0])
@pytest.mark.parametrize("count", [26, 31, 32, 41])
def test_padded_keys_take_no_share_wherever_the_scores_lie(offset: float, count: int) -> None:
    """Scores of −60 leave the padded keys all but alone in the denominator; they must not be seen even then."""
    encoder = DinoV2(SIZES["vitn"]).bfloat16()
    block = PackedBlock(encoder.blocks[0])  # type: ignore[arg-type]
    heads, width = block.heads, block.width
    generator = torch.Generator().manual_seed(count)
    padded = count + -count % packed.STEP
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


def test_follows_the_weights() -> None:
    torch.manual_seed(0)
    model = lively(build("vitn")).bfloat16()
    assert isinstance(model, DepthAnything)
    image = torch.randn(1, 3, 70, 70).bfloat16()
    with torch.inference_mode():
        before = model(image)
        assert torch.equal(model(image), before)
    other = lively(build("vitn"), seed=1).bfloat16()
    model.load_state_dict(other.state_dict())
    with torch.inference_mode():
        after = model(image)
        assert not torch.equal(after, before)
        assert torch.equal(after, other(image))
    with torch.no_grad():
        model.decoder.head1.weight.mul_(0.5)
        assert not torch.equal(model(image), after)


def test_is_made_once_and_goes_with_its_model() -> None:
    model = build("vitn").bfloat16().eval()
    first = packed_network(model, model.encoder, model.decoder, 84)
    assert packed_network(model, model.encoder, model.decoder, 84) is first
    gone = weakref.ref(first)
    del first, model
    gc.collect()
    assert gone() is None


def test_serves_inference_in_bfloat16_only() -> None:
    model, image = build("vitn").eval(), torch.zeros(1, 3, 14, 14)
    low, low_image = copy.deepcopy(model).bfloat16(), image.bfloat16()
    assert not serves(low, low_image)
    with torch.no_grad():
        assert serves(low, low_image)
        assert not serves(model, image)
        assert not serves(model, low_image)
        assert not serves(low.train(), low_image)
        low.eval()
        with torch.autocast("cpu", torch.bfloat16):
            assert not serves(low, low_image)
        with pytest.raises(ValueError, match="multiples of 14"):
            low(torch.zeros(1, 3, 14, 15).bfloat16())
