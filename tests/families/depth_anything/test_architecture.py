"""Sizes, positional embedding, decoder and preprocessing against slow, obvious versions."""

from __future__ import annotations

import math
from typing import get_args

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dav2.families.depth_anything.dinov2 import smooth_position_table
from dav2.families.depth_anything.dpt import DPT
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.preprocess import network_shape, preprocess
from dav2.families.depth_anything.sizes import GRID, SIZES
from dav2.params import Size
from dav2.params.base import patch_of

PUBLISHED = {"vits": 24_785_089, "vitb": 97_470_785, "vitl": 335_315_649, "vitg": 1_258_132_225}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameter_counts_are_those_published(size: str) -> None:
    with torch.device("meta"):
        model = build(size)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[size]


@pytest.fixture(scope="module")
def small() -> DepthAnything:
    torch.manual_seed(0)
    return build("vitn").eval()


@pytest.mark.parametrize("grid", [(10, 10), (37, 49), (20, 37), (74, 37)])
def test_positions_follow_the_scale_factor_rule_of_the_original_code(
    small: DepthAnything, grid: tuple[int, int]
) -> None:
    table = small.encoder.pos_embed
    scale = tuple((count + 0.1) / GRID for count in grid)
    patches = table[:, 1:].reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    assert expected.shape[-2:] == grid
    ours = small.encoder.positions(*grid)
    assert torch.allclose(ours[0, 1:], expected[0].flatten(1).T, atol=1e-5)
    assert torch.equal(ours[:, 0], table[:, 0])


def test_positions_are_untouched_at_the_native_grid(small: DepthAnything) -> None:
    assert small.encoder.positions(GRID, GRID) is small.encoder.pos_embed


def test_small_sizes_start_from_a_smooth_position_table(small: DepthAnything) -> None:
    table = smooth_position_table(128)
    assert torch.equal(small.encoder.pos_embed, table)
    grid = table[0, 1:].reshape(GRID, GRID, -1)
    assert (grid[1:] - grid[:-1]).norm(dim=-1).max() < grid[0].norm(dim=-1).mean()


def test_decoder_equals_the_published_order_of_operations() -> None:
    """Enlarging first and convolving after, with separate projections, as the published decoder is described."""
    torch.manual_seed(0)
    decoder = DPT(SIZES["vitn"]).eval()
    rows, columns = 5, 7
    tapped = [torch.randn(2, rows * columns, 128) for _ in range(4)]

    def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    def unit(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return x + block.conv2(F.relu(block.conv1(F.relu(x))))

    with torch.no_grad():
        maps = []
        for k, tokens in enumerate(tapped):
            x = tokens.transpose(1, 2).reshape(2, 128, rows, columns).contiguous()
            maps.append(decoder.lateral[k](decoder.resize[k](decoder.project[k](x))))
        assert [tuple(m.shape[-2:]) for m in maps] == [(20, 28), (10, 14), (5, 7), (3, 4)]
        x = decoder.fusion[3].out(resize(unit(decoder.fusion[3].unit, maps[3]), (5, 7)))
        for k, size in ((2, (10, 14)), (1, (20, 28)), (0, (40, 56))):
            block = decoder.fusion[k]
            x = block.out(resize(unit(block.unit, x + unit(block.lateral_unit, maps[k])), size))
        x = resize(decoder.head1(x), (70, 98))
        expected = decoder.head3(F.relu(decoder.head2(x))).squeeze(1)
        assert torch.allclose(decoder(tapped, rows, columns), expected, atol=1e-5)


def test_every_trained_parameter_gets_a_gradient() -> None:
    model = build("vitn", 20.0).train()
    model(torch.randn(1, 3, 56, 70)).mean().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_training_and_inference_attention_agree(small: DepthAnything) -> None:
    image = torch.randn(1, 3, 70, 98)
    with torch.no_grad():
        fused = small(image)
    assert torch.allclose(small(image), fused, atol=1e-5)


def test_recomputing_activations_changes_no_gradient() -> None:
    torch.manual_seed(0)
    model = build("vitn").train()
    image = torch.randn(1, 3, 42, 42)
    gradients = []
    for enable in (False, True):
        model.set_activation_checkpointing(enable)
        model.zero_grad()
        model(image).sum().backward()
        gradients.append(model.encoder.blocks[0].attn.qkv.weight.grad.clone())
    assert torch.allclose(*gradients)


@pytest.mark.parametrize(
    ("image", "size", "expected"),
    [((1080, 1920), 518, (518, 924)), ((480, 640), 518, (518, 686)), ((640, 480), 140, (182, 140)),
     ((518, 518), 518, (518, 518)), ((100, 1000), 140, (140, 1400))],
)  # fmt: skip
def test_network_shape_follows_the_published_rule(image: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    assert network_shape(*image, size) == expected


def test_preprocessing_equals_the_published_steps_in_double_precision() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (75, 110, 3), np.uint8)
    height, width = network_shape(75, 110, 140)
    image = cv2.resize(rgb / 255.0, (width, height), interpolation=cv2.INTER_CUBIC)
    expected = ((image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    ours = preprocess(rgb, 140)
    assert ours.dtype == np.float32 and ours.flags.c_contiguous
    # A thousandth of a grey level is 2e-5 here.
    assert np.abs(ours - expected).max() < 1e-4


def test_inference_returns_the_image_resolution_and_batches_equal_shapes(small: DepthAnything) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, shape, np.uint8) for shape in ((90, 120, 3), (60, 60, 3), (90, 120, 3))]
    together = small.infer_images(images, 70)
    for rgb, depth in zip(images, together, strict=True):
        assert depth.shape == rgb.shape[:2] and depth.dtype == np.float32 and (depth >= 0).all()
        assert np.allclose(depth, small.infer_image(rgb, 70), atol=1e-4)


def test_metric_predictions_stay_inside_the_range() -> None:
    depth = build("vitn", 20.0).eval().infer_image(np.zeros((40, 50, 3), np.uint8), 56)
    assert (depth > 0).all() and (depth < 20).all()


def test_one_pixel_is_an_image(small: DepthAnything) -> None:
    depth = small.infer_image(np.zeros((1, 1, 3), np.uint8), 28)
    assert depth.shape == (1, 1) and math.isfinite(depth[0, 0])


def test_wrong_inputs_are_named(small: DepthAnything) -> None:
    with pytest.raises(ValueError, match="no model size 'vitx'"):
        build("vitx")
    with pytest.raises(ValueError, match="nearest are 490 and 504"):
        small.infer_image(np.zeros((10, 10, 3), np.uint8), 500)
    with pytest.raises(ValueError, match="uint8 array of shape"):
        small.infer_image(np.zeros((10, 10), np.uint8))
    with pytest.raises(ValueError, match="multiples of 14"):
        small(torch.zeros(1, 3, 100, 98))


def test_a_pixel_at_zero_can_rise_but_not_fall_in_training() -> None:
    raw = torch.tensor([[[-1.0, -1.0, 2.0, 2.0]]], requires_grad=True)
    model = build("vitn")
    assert torch.equal(model.activate(raw), raw.relu())
    model.train().activate(raw).backward(torch.tensor([[[-3.0, 3.0, -3.0, 3.0]]]))
    assert raw.grad is not None
    assert raw.grad.tolist() == [[[-3.0, 0.0, -3.0, 3.0]]]


def test_the_settings_and_the_family_know_the_same_sizes() -> None:
    assert set(get_args(Size)) == set(SIZES)
    assert {name: patch_of(name) for name in SIZES} == {name: size.patch for name, size in SIZES.items()}
