"""Image and target stay aligned, depth is never mixed, and augmentation is a function of its random numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dav2.data.feed import transforms
from dav2.data.feed.colours import _to_hsv, _to_rgb, recoloured
from dav2.data.feed.transforms import Colour, Geometry
from tests.data.builders import photograph


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(8, 300), st.integers(8, 300)), st.integers(0, 2**32))
def test_the_crop_lies_inside_the_resized_image_and_the_aspect_is_kept(size, seed):
    crop = (28, 42)
    g = transforms.draw_geometry(np.random.default_rng(seed), size, crop, (1.0, 1.5), 0.5)
    assert 0 <= g.top <= g.height - 28 and 0 <= g.left <= g.width - 42
    factor = max(28 / size[0], 42 / size[1])
    assert abs(g.height / size[0] - g.width / size[1]) <= 1.0 / min(size)
    assert g.height <= 1.5 * factor * size[0] + 1 and g.width <= 1.5 * factor * size[1] + 1


def test_the_four_random_numbers_move_the_crop_over_the_whole_image():
    rng = np.random.default_rng(0)
    drawn = [transforms.draw_geometry(rng, (100, 200), (70, 70), (1.0, 1.4), 0.5) for _ in range(400)]
    assert min(g.left for g in drawn) == 0 and max(g.left + 70 - g.width for g in drawn) == 0
    assert {g.height for g in drawn} >= set(range(71, 97))
    assert 0.4 < np.mean([g.flip for g in drawn]) < 0.6


def nearest_by_hand(codes, g):
    """For each new pixel the source pixel that holds its centre."""
    out = np.empty((g.crop_height, g.crop_width), codes.dtype)
    for i in range(g.crop_height):
        for j in range(g.crop_width):
            column = g.crop_width - 1 - j if g.flip else j
            y = (g.top + i + 0.5) * codes.shape[0] / g.height
            x = (g.left + column + 0.5) * codes.shape[1] / g.width
            out[i, j] = codes[int(y), int(x)]
    return out


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(20, 31), (47, 53), (90, 80)])
def test_depth_is_taken_from_the_pixel_that_holds_the_centre(size, flip):
    codes = np.random.default_rng(0).integers(0, 65536, (47, 53)).astype(np.uint16)
    g = Geometry(*size, 3, 5, 14, 17, flip)
    assert np.array_equal(transforms.place_nearest(codes, g), nearest_by_hand(codes, g))


@pytest.mark.parametrize("size", [(30, 40), (120, 160), (60, 80), (77, 91)])
@pytest.mark.parametrize("flip", [False, True])
def test_an_edge_is_at_the_same_place_in_image_depth_and_label(size, flip):
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[:, 33:] = 255
    codes = np.where(rgb[..., 0] > 0, 40_000, 10_000).astype(np.uint16)
    g = Geometry(*size, 2, 1, 26, 37, flip)
    image = transforms.place_image(rgb, g)[..., 0] > 127
    label = transforms.place_linear(codes.astype(np.float32), g) > 25_000
    depth = transforms.place_nearest(codes, g) > 25_000
    assert np.abs(image.sum(axis=1) - depth.sum(axis=1)).max() <= 1
    assert np.abs(image.sum(axis=1) - label.sum(axis=1)).max() <= 1


def test_resizing_depth_makes_up_no_value():
    codes = np.where(np.random.default_rng(0).random((50, 60)) > 0.5, 65535, 700).astype(np.uint16)
    placed = transforms.place_nearest(codes, Geometry(33, 41, 0, 0, 33, 41, False))
    assert set(np.unique(placed)) == {700, 65535}


def test_shrinking_averages_and_enlarging_keeps_the_mean():
    rgb = photograph(0, 120, 160)
    small = transforms.resize_image(rgb, 40, 53)
    large = transforms.resize_image(rgb, 240, 320)
    assert np.abs(small.mean((0, 1)) - rgb.mean((0, 1))).max() < 1
    assert np.abs(large.mean((0, 1)) - rgb.mean((0, 1))).max() < 1
    assert transforms.resize_image(rgb, 120, 160) is rgb


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_photometric_augmentation_is_a_function_of_the_random_numbers(shares):
    rgb = photograph(0)
    drawn = (transforms.draw_colour(np.random.default_rng(seed), *shares) for seed in (1, 1, 2))
    once, again, other = (transforms.recolour(rgb, colour) for colour in drawn)
    assert np.array_equal(once, again) and not np.array_equal(once, other)
    assert once.dtype == np.uint8 and once.shape == rgb.shape


def test_jitter_agrees_with_its_steps_done_in_floating_point():
    rgb = photograph(5)
    brighter = transforms.recolour(rgb, Colour(True, brightness=1.15)).astype(float)
    assert np.abs(brighter - np.clip(rgb * 1.15, 0, 255)).mean() < 1.5
    pale = transforms.recolour(rgb, Colour(True, saturation=0.5))
    saturation = [cv2.cvtColor(x, cv2.COLOR_RGB2HSV)[..., 1].mean() for x in (rgb, pale)]
    assert saturation[1] == pytest.approx(saturation[0] / 2, rel=0.05)
    turned = transforms.recolour(np.full((2, 2, 3), (200, 40, 40), np.uint8), Colour(True, hue=0.25))
    assert turned[0, 0, 1] > turned[0, 0, 0]  # a quarter of the circle on from red lies yellow-green


def test_the_mean_that_jitter_turns_around_is_numpys():
    for number, (height, width) in enumerate(((31, 47), (70, 41), (5, 3))):
        rgb = photograph(number, height, width)
        grey = np.repeat(rgb[..., :1], 3, axis=2)
        by_hand, _, _ = transforms.colour_tables(grey.reshape(-1, 3).mean(axis=0), Colour(True, contrast=1.37))
        assert np.array_equal(transforms.recolour(grey, Colour(True, contrast=1.37)), cv2.LUT(grey, by_hand))


def test_the_device_changes_colours_to_the_byte_as_the_host_does():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 61, 64, 3), dtype=np.uint8)
    pictures[6:] = np.stack([photograph(number, 61, 64) for number in range(6)])
    colours = [transforms.draw_colour(rng, 0.8, 0.7) for _ in pictures]
    colours[:3] = [Colour(), Colour(sigma=0.1), Colour(sigma=2.0)]
    assert {colour.jittered for colour in colours} == {True, False} and 0.0 in {colour.sigma for colour in colours}
    expected = np.stack([transforms.recolour(rgb, colour) for rgb, colour in zip(pictures, colours, strict=True)])
    assert np.array_equal(recoloured(torch.from_numpy(pictures), colours).numpy(), expected)
    # Where a row is no whole number of vector registers, OpenCV rounds the last few pixels otherwise.
    narrow = np.ascontiguousarray(pictures[:, :, :47])
    expected = np.stack([transforms.recolour(rgb, colour) for rgb, colour in zip(narrow, colours, strict=True)])
    assert np.abs(recoloured(torch.from_numpy(narrow), colours).numpy().astype(int) - expected).max() <= 1


def test_every_hue_saturation_and_value_comes_back_as_opencv_gives_it():
    every = np.stack(np.meshgrid(np.arange(0, 180, 3), np.arange(0, 256, 3), np.arange(0, 256, 3), indexing="ij"), -1)
    hsv = every.reshape(60, -1, 3).astype(np.uint8)
    found = _to_rgb(*torch.from_numpy(hsv).int().unbind(-1)).numpy()
    apart = np.abs(found.astype(int) - cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    # A processor without fused products rounds once more, which moves a few values by one.
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-4
    assert all(torch.equal(one, other) for one, other in zip(
        _to_hsv(torch.from_numpy(hsv)), torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_RGB2HSV)).int().unbind(-1),
        strict=True,
    ))  # fmt: skip


def test_cutmix_rectangles_have_the_published_area_and_stay_inside():
    rng = np.random.default_rng(0)
    boxes = [transforms.cutmix_box(rng, 140, 140) for _ in range(500)]
    areas = np.array([(b.bottom - b.top) * (b.right - b.left) for b in boxes]) / 140**2
    assert all(0 <= b.top < b.bottom <= 140 and 0 <= b.left < b.right <= 140 for b in boxes)
    assert areas.min() > 0.015 and areas.max() < 0.42 and areas.max() > 0.35
