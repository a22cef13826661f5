"""Protocols: declared regions, ranges and alignments do what they say, and a changed rule changes the hash."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dav2.maps import Maps, Quantity
from dav2.params import load
from dav2.scores.layer_protocols import declared
from dav2.scores.protocols import KITTI_GARG, NYU_EIGEN, PROTOCOLS, Crop
from dav2.scores.scoring import NO_PIXELS, NOT_FINITE, WRONG_SIZE, score_frame, valid_mask
from tests.evaluation.conftest import ROOT


def test_the_nyu_crop_is_rows_45_to_471_and_columns_41_to_601() -> None:
    expected = np.zeros((480, 640), bool)
    expected[45:471, 41:601] = True
    np.testing.assert_array_equal(NYU_EIGEN.mask(480, 640), expected)


def test_the_garg_crop_cuts_as_the_published_fractions_truncated() -> None:
    expected = np.zeros((352, 1216), bool)
    expected[int(0.40810811 * 352) : int(0.99189189 * 352), int(0.03594771 * 1216) : int(0.96405229 * 1216)] = True
    np.testing.assert_array_equal(KITTI_GARG.mask(352, 1216), expected)


def test_every_field_that_decides_a_number_changes_the_hash() -> None:
    protocol = PROTOCOLS["da-v2-nyu"]
    other = {
        "name": "x",
        "alignment": "native",
        "min_depth": 0.5,
        "max_depth": 9.0,
        "crop": Crop(0, 1, 0, 1),
        "input_crop": (1, 1),
        "floor": 0.1,
        "image_side": 100,
        "fit_side": 100,
        "keys": "x",
        "boundary": ("f1",),
        "frames": 1,
        "min_pixels": 3,
    }
    assert set(other) == {field.name for field in fields(protocol)}
    digests = {replace(protocol, **{name: value}).digest() for name, value in other.items()}
    assert len(digests | {protocol.digest()}) == len(other) + 1
    assert len({each.digest() for each in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_the_settings_name_protocols_that_exist() -> None:
    for benchmark in load(ROOT / "params.yaml").evaluate.benchmarks.values():
        declared(benchmark.protocol)
    with pytest.raises(ValueError, match="there are: da-v2-nyu"):
        declared("da-v3")


def _scene() -> torch.Tensor:
    depth = torch.linspace(0.5, 12, 48)[:, None].repeat(1, 64)
    depth[:3], depth[:, :3] = torch.inf, torch.nan
    return depth


def test_sky_unknown_and_far_pixels_do_not_count() -> None:
    target, protocol = _scene(), replace(PROTOCOLS["da-v2-nyu"], crop=None)
    mask = valid_mask(target, protocol)
    assert not mask[:3].any()
    assert not mask[:, :3].any()
    assert not mask[target > 10].any()
    assert mask.sum() == ((target > 1e-3) & (target < 10)).sum()


def test_an_affine_disparity_is_perfect_under_every_relative_protocol() -> None:
    target = _scene()
    disparity = 7 * torch.where(torch.isfinite(target), target, 1).reciprocal() + 3
    for name in ("da-v2-nyu", "da-v2-middlebury", "marigold-nyu", "moge-nyu", "marigold-eth3d"):
        scored = score_frame(Maps(Quantity.DISPARITY, disparity), target, PROTOCOLS[name])
        assert scored.metrics["abs_rel"] < 1e-4, name
        assert scored.metrics["delta1"] == 1.0, name


def test_marigold_fits_a_depth_model_in_depth_and_da_v2_in_disparity() -> None:
    target = _scene()
    affine_depth = 0.5 * torch.nan_to_num(target, 1, 1) + 2
    native = score_frame(Maps(Quantity.METRES, affine_depth), target, PROTOCOLS["marigold-nyu"]).metrics["abs_rel"]
    disparity = score_frame(Maps(Quantity.METRES, affine_depth), target, PROTOCOLS["da-v2-nyu"]).metrics["abs_rel"]
    assert native < 1e-4
    assert disparity > 0.01


def test_relative_depth_and_its_logarithm_are_fitted_in_the_space_they_live_in() -> None:
    target = _scene()
    known = torch.where(torch.isfinite(target), target, 1)
    for quantity, values in ((Quantity.DEPTH, 3 * known - 40), (Quantity.LOG_DEPTH, 0.2 * known.log() - 7)):
        for name in ("da-v2-nyu", "marigold-nyu", "moge-nyu"):
            scored = score_frame(Maps(quantity, values), target, PROTOCOLS[name])
            assert scored.metrics["abs_rel"] < 1e-4, (quantity, name)
    with pytest.raises(ValueError, match="relative log depth"):
        score_frame(Maps(Quantity.LOG_DEPTH, known), target, PROTOCOLS["metric-nyu"])
    with pytest.raises(ValueError, match="predicts albedo"):
        score_frame(Maps(Quantity.ALBEDO, known), target, PROTOCOLS["da-v2-nyu"])


def test_metres_are_taken_as_they_are_and_clipped_to_the_range() -> None:
    target, protocol = _scene(), PROTOCOLS["metric-nyu"]
    doubled = score_frame(Maps(Quantity.METRES, 2 * torch.nan_to_num(target, 1, 1)), target, protocol)
    assert doubled.depth is not None
    assert float(doubled.depth.max()) == 10.0
    assert 0.5 < doubled.metrics["abs_rel"] < 1.0


def test_moge_bounds_the_fitted_disparity_by_the_farthest_truth() -> None:
    target = _scene()
    disparity = torch.where(torch.isfinite(target), target, 1).reciprocal()
    disparity[20, 20] = -5.0
    scored = score_frame(Maps(Quantity.DISPARITY, disparity), target, PROTOCOLS["moge-nyu"])
    assert scored.depth is not None
    farthest = target[torch.isfinite(target)].max()
    assert float(scored.depth.max()) <= float(farthest) * (1 + 1e-5)


def test_truth_of_unknown_unit_gives_the_same_errors_at_any_scale() -> None:
    target, protocol = _scene(), PROTOCOLS["da-v2-middlebury"]
    disparity = torch.rand(48, 64, generator=torch.Generator().manual_seed(0))
    first = score_frame(Maps(Quantity.DISPARITY, disparity), target, protocol, metric_truth=False).metrics
    second = score_frame(Maps(Quantity.DISPARITY, disparity), 250 * target, protocol, metric_truth=False).metrics
    for name, value in first.items():
        assert second[name] == pytest.approx(value, rel=1e-3), name


def test_fitting_on_every_nth_pixel_changes_the_fit_only_a_little() -> None:
    target, full = _scene(), PROTOCOLS["da-v2-middlebury"]
    disparity = torch.rand(48, 64, generator=torch.Generator().manual_seed(0))
    coarse = score_frame(Maps(Quantity.DISPARITY, disparity), target, replace(full, fit_side=32)).metrics["abs_rel"]
    fine = score_frame(Maps(Quantity.DISPARITY, disparity), target, full).metrics["abs_rel"]
    assert coarse == pytest.approx(fine, rel=0.05)


def test_what_cannot_be_scored_has_a_name() -> None:
    target, protocol = _scene(), PROTOCOLS["da-v2-nyu"]
    assert score_frame(Maps(Quantity.DISPARITY, torch.ones(24, 32)), target, protocol).problem == WRONG_SIZE
    assert score_frame(Maps(Quantity.DISPARITY, torch.ones(48, 64)), target + 100, protocol).problem == NO_PIXELS
    spoiled = torch.ones(48, 64)
    spoiled[5, 5] = torch.nan
    assert score_frame(Maps(Quantity.DISPARITY, spoiled), target, protocol).problem == NOT_FINITE
