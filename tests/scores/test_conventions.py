"""Each convention against a slow version of its published definition, in float64, crop and range included, to 1e-5."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dav2.maps import Maps, Quantity
from dav2.scores import alignment
from dav2.scores.protocols import (
    CONVENTIONS,
    KITTI_EIGEN,
    KITTI_GARG,
    NYU_EIGEN,
    PROTOCOLS,
    chosen_protocols,
)
from dav2.scores.scoring import score_frame
from tests.scores.test_metrics import slow_metrics

DECLARED = ("da-v2-nyu", "marigold-nyu", "metric-nyu", "da-v2-middlebury")
RELATIVE = ("ls-depth", "ls-disparity", "ls-root-disparity", "ransac-log")


def _scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth in metres (H, W) with sky and holes, and a prediction in metres that is wrong by scale, shift and noise."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(1, 9.5, 48)[:, None] * rng.uniform(0.8, 1.05, (48, 64))
    depth[:4], depth[10:12, 20:30], depth[40, 40] = np.inf, np.nan, 30.0
    smooth = np.where(np.isfinite(depth), depth, 5.0)
    prediction = 0.3 * smooth**1.1 + 0.4 + rng.normal(0, 0.05, depth.shape)
    return depth.astype(np.float32), prediction.clip(0.1).astype(np.float32)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    scale, shift = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0]
    return float(scale), float(shift)


def _every_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """RANSAC with all lines through two points instead of some: the most points within the deviation of the median."""
    limit, best = np.median(np.abs(y - np.median(y))), np.zeros(len(x), bool)
    for i, j in itertools.combinations(range(len(x)), 2):
        if x[i] != x[j]:
            scale = (y[j] - y[i]) / (x[j] - x[i])
            near = np.abs(scale * (x - x[i]) + y[i] - y) <= limit
            best = near if near.sum() > best.sum() else best
    return _line(x[best], y[best])


def _slow(prediction: np.ndarray, depth: np.ndarray, convention: str, name: str) -> dict[str, float]:
    """The definition, pixel by pixel where it matters: mask, fit, inversion, clipping, errors."""
    declared = PROTOCOLS[name]
    near, far = declared.min_depth, declared.max_depth
    mask = np.isfinite(depth) & (depth > near) & (depth < far)
    if declared.crop is not None:
        rows, columns = (45, 471), (41, 601)  # of 480 × 640, as published
        inside = np.zeros_like(mask)
        height, width = mask.shape
        inside[
            math.floor(rows[0] / 480 * height) : math.floor(rows[1] / 480 * height),
            math.floor(columns[0] / 640 * width) : math.floor(columns[1] / 640 * width),
        ] = True
        mask &= inside
    p, d = prediction.astype(np.float64), depth.astype(np.float64)
    known = np.where(mask, d, 1.0)
    least = {"max_depth": 1 / far, "max_target": 1 / d[mask].max()}.get(str(declared.floor), declared.floor)
    if convention == "none":
        fitted = p
    elif convention == "median":
        fitted = p * np.median(d[mask]) / np.median(p[mask])
    elif convention == "ls-depth":
        scale, shift = _line(p[mask], d[mask])
        fitted = scale * p + shift
    elif convention == "ls-disparity":
        scale, shift = _line(1 / p[mask], 1 / d[mask])
        fitted = 1 / np.maximum(scale / p + shift, max(float(least), 1e-12))
    elif convention == "ls-root-disparity":
        scale, shift = _line(p[mask] ** -0.5, d[mask] ** -0.5)
        fitted = np.maximum(scale * p**-0.5 + shift, float(least) ** 0.5) ** -2
    else:
        scale, shift = _every_line(np.log(1 + p[mask]), np.log(1 + d[mask]))
        fitted = np.exp(scale * np.log(1 + p) + shift) - 1
    return slow_metrics(np.clip(fitted, max(near, 1e-6), min(far, 1e9)), known, mask)


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("convention", [each for each in CONVENTIONS if each != "ransac-log"])
def test_a_convention_equals_its_definition(convention: str, name: str) -> None:
    depth, prediction = _scene(1)
    protocol = replace(PROTOCOLS[name].under(convention), boundary=())
    scored = score_frame(Maps(Quantity.METRES, torch.from_numpy(prediction)), torch.from_numpy(depth), protocol)
    slow = _slow(prediction, depth, convention, name)
    for metric, value in slow.items():
        assert scored.metrics[metric] == pytest.approx(value, rel=1e-5), metric


def test_ransac_finds_what_all_lines_together_find() -> None:
    depth, _ = _scene(2)
    depth, rng = depth[12:30, 4:20].copy(), np.random.default_rng(0)
    values = np.expm1((np.log1p(depth) + 0.2) / 1.5) * (1 + rng.normal(0, 1e-4, depth.shape))
    wrong = rng.random(depth.shape) < 0.3
    values[wrong] = rng.uniform(20, 60, int(wrong.sum()))
    values = values.astype(np.float32)
    protocol = PROTOCOLS["marigold-scannet"].under("ransac-log")
    scored = score_frame(Maps(Quantity.METRES, torch.from_numpy(values)), torch.from_numpy(depth), protocol)
    slow = _slow(values, depth, "ransac-log", "marigold-scannet")
    for metric, value in slow.items():
        assert scored.metrics[metric] == pytest.approx(value, rel=1e-5), metric
    plain = score_frame(
        Maps(Quantity.METRES, torch.from_numpy(values)),
        torch.from_numpy(depth),
        replace(protocol, alignment="ls-depth"),
    )
    assert scored.metrics["delta1"] > plain.metrics["delta1"]


def test_ransac_recovers_an_exact_line_in_spite_of_gross_errors_and_says_the_same_twice() -> None:
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.uniform(0, 3, (20, 30)).astype(np.float32))
    y = 1.7 * x - 0.25
    y[rng.random((20, 30)) < 0.3] = 40
    mask = torch.ones(20, 30, dtype=torch.bool)
    scale, shift = alignment.ransac(x, y, mask)
    assert scale.item() == pytest.approx(1.7, abs=1e-6)
    assert shift.item() == pytest.approx(-0.25, abs=1e-6)
    assert alignment.ransac(x, y, mask) == (scale, shift)


def test_ransac_of_a_constant_truth_falls_back_to_least_squares() -> None:
    x, mask = torch.rand(6, 7), torch.ones(6, 7, dtype=torch.bool)
    scale, shift = alignment.ransac(x, torch.full((6, 7), 2.0), mask)
    assert (round(scale.item(), 6), round(shift.item(), 6)) == (0.0, 2.0)


@pytest.mark.parametrize("convention", RELATIVE)
def test_what_is_affine_where_it_lives_is_perfect_in_every_space(convention: str) -> None:
    depth, _ = _scene(4)
    target = torch.from_numpy(depth)
    known = torch.where(torch.isfinite(target), target, 5)
    protocol = PROTOCOLS["da-v2-nyu"].under(convention)
    for quantity, values in (
        (Quantity.DISPARITY, 7 / known + 3),
        (Quantity.DEPTH, 3 * known - 40),
        (Quantity.LOG_DEPTH, 0.2 * known.log() - 7),
        (Quantity.METRES, known),
    ):
        assert score_frame(Maps(quantity, values), target, protocol).metrics["abs_rel"] < 1e-4, quantity


def test_relative_maps_are_fitted_where_they_live_and_then_where_the_convention_says() -> None:
    depth, noisy = _scene(5)
    mask = np.isfinite(depth) & (depth > 1e-3) & (depth < 10)
    values = 1 / noisy
    scale, shift = _line(values[mask].astype(float), 1 / depth[mask].astype(float))
    first = np.clip(1 / np.maximum(scale * values + shift, 0.1), 1e-3, 10)
    scale, shift = _line(first[mask], depth[mask].astype(float))
    expected = slow_metrics(np.clip(scale * first + shift, 1e-3, 10), np.where(mask, depth, 1), mask)
    protocol = replace(PROTOCOLS["da-v2-scannet"].under("ls-depth"))
    scored = score_frame(Maps(Quantity.DISPARITY, torch.from_numpy(values)), torch.from_numpy(depth), protocol)
    assert scored.metrics["abs_rel"] == pytest.approx(expected["abs_rel"], rel=1e-5)


def test_least_squares_in_disparity_is_the_declared_fit_of_da_v2() -> None:
    depth, noisy = _scene(6)
    declared = PROTOCOLS["da-v2-nyu"]
    for quantity, values in ((Quantity.DISPARITY, 1 / noisy), (Quantity.METRES, noisy)):
        both = [
            score_frame(Maps(quantity, torch.from_numpy(values)), torch.from_numpy(depth), protocol).metrics
            for protocol in (declared, declared.under("ls-disparity"))
        ]
        assert both[0] == both[1]


@pytest.mark.parametrize("convention", ["median", "none"])
def test_a_convention_that_needs_metres_refuses_what_has_none(convention: str) -> None:
    protocol = PROTOCOLS["da-v2-nyu"].under(convention)
    assert not protocol.takes_relative
    with pytest.raises(ValueError, match="measures metres; the model predicts relative disparity"):
        score_frame(Maps(Quantity.DISPARITY, torch.ones(48, 64)), torch.ones(48, 64), protocol)


def test_a_convention_keeps_region_range_and_resolution_and_has_a_hash_of_its_own() -> None:
    declared = PROTOCOLS["marigold-kitti"]
    for convention in CONVENTIONS:
        other = declared.under(convention)
        assert replace(other, name=declared.name, alignment=declared.alignment) == declared
        assert other.digest() != declared.digest()
        json.dumps(other.describe())
    with pytest.raises(ValueError, match="no convention 'ls'; there are: ls-depth"):
        declared.under("ls")


def test_protocols_are_chosen_by_name_by_convention_or_all() -> None:
    declared = PROTOCOLS["da-v2-nyu"]
    names = {each.name for each in chosen_protocols(declared, ["all"])}
    assert names == {"marigold-nyu", "moge-nyu", "metric-nyu", *(f"da-v2-nyu+{each}" for each in CONVENTIONS)}
    assert [each.name for each in chosen_protocols(declared, ["median", "moge-nyu", "moge-kitti", "median"])] == [
        "da-v2-nyu+median",
        "moge-nyu",
    ]
    assert chosen_protocols(declared, ["da-v2-nyu"]) == []
    with pytest.raises(ValueError, match="no protocol 'ls'; there are: all, ls-depth"):
        chosen_protocols(declared, ["ls"])
    assert {each.set_name for each in PROTOCOLS.values()} >= {"nyu", "kitti", "edges", "middlebury"}


def test_crops_end_at_the_pixel_of_the_published_codes() -> None:
    """370 is a height of KITTI's images, 306 and 185 are not; there the products lie a hair below a whole number."""
    for crop in (KITTI_GARG, KITTI_EIGEN):
        for height, width in ((370, 1226), (375, 1242), (185, 306)):
            rows, columns = (np.flatnonzero(crop.mask(height, width).any(axis)) for axis in (1, 0))
            assert (rows[0], rows[-1]) == (int(crop.top * height), int(crop.bottom * height) - 1)
            assert (columns[0], columns[-1]) == (int(crop.left * width), int(crop.right * width) - 1)
    assert np.flatnonzero(KITTI_GARG.mask(370, 1226).any(1))[-1] == 365
    assert NYU_EIGEN.mask(480, 640)[45:471, 41:601].all() and NYU_EIGEN.mask(480, 640).sum() == 426 * 560


def test_marigold_fits_disparity_where_it_is_above_zero_only() -> None:
    depth, prediction = _scene(2)
    disparity = 1 / prediction
    disparity[30:] = 0.0
    protocol = PROTOCOLS["marigold-nyu"]
    mask = np.isfinite(depth) & (depth > 1e-3) & (depth < 10) & protocol.crop.mask(*depth.shape)  # type: ignore[union-attr]
    counted = mask & (disparity > 0)
    scale, shift = _line(disparity[counted].astype(np.float64), 1 / depth[counted].astype(np.float64))
    fitted = (1 / np.maximum(scale * disparity + shift, 1e-3)).clip(1e-3, 10)
    found = score_frame(Maps(Quantity.DISPARITY, torch.from_numpy(disparity)), torch.from_numpy(depth), protocol)
    expected = slow_metrics(fitted, np.where(mask, depth, 1.0), mask)
    assert all(abs(found.metrics[name] - value) <= 1e-5 * max(1.0, value) for name, value in expected.items())
    flat = score_frame(Maps(Quantity.DISPARITY, torch.zeros(48, 64)), torch.from_numpy(depth), protocol)
    assert math.isfinite(flat.metrics["abs_rel"])


def test_a_fit_on_a_smaller_grid_takes_the_nearest_pixels() -> None:
    """Pixel i of the small grid is pixel floor(i · long side / fit side) of the large one."""
    depth, prediction = _scene(3)
    protocol = replace(PROTOCOLS["marigold-nyu"], crop=None, fit_side=25)
    rows, columns = (np.floor(np.arange(int(side * 25 / 64)) * 64 / 25).astype(int) for side in depth.shape)
    small_depth, small = depth[np.ix_(rows, columns)], prediction[np.ix_(rows, columns)]
    known = np.isfinite(small_depth) & (small_depth > 1e-3) & (small_depth < 10)
    scale, shift = _line(small[known].astype(np.float64), small_depth[known].astype(np.float64))
    found = score_frame(Maps(Quantity.DEPTH, torch.from_numpy(prediction)), torch.from_numpy(depth), protocol)
    mask = np.isfinite(depth) & (depth > 1e-3) & (depth < 10)
    expected = slow_metrics((scale * prediction + shift).clip(1e-3, 10), np.where(mask, depth, 1.0), mask)
    assert all(abs(found.metrics[name] - value) <= 1e-5 * max(1.0, value) for name, value in expected.items())
