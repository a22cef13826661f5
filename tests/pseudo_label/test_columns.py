"""Quality columns against numbers that can be worked out by hand or by a slow obvious version."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dav2.data.store import depth_codec
from dav2.pseudo_label import columns, columns_there


def ramp(height: int = 20, width: int = 30) -> np.ndarray:
    return np.tile(np.linspace(1.0, 3.0, width, dtype=np.float32), (height, 1))


def test_relative_range_is_spread_over_mean_and_does_not_change_with_scale() -> None:
    assert columns.relative_range(ramp()) == pytest.approx((3 - 1) / 2)
    assert columns.relative_range(ramp() * 50) == pytest.approx(1.0)
    assert columns.relative_range(np.full((4, 4), 2, np.float32)) == 0
    assert columns.relative_range(np.zeros((4, 4), np.float32)) == 0


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_saturated_share_counts_the_codes_that_storage_writes(bits: int) -> None:
    disparity = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    disparity[:10] = 0
    data, meta = depth_codec.encode_disparity(disparity, bits)
    codes = depth_codec.decode_disparity_codes(data, meta["codec"], bits)
    expected = np.mean((codes == 0) | (codes == 2**bits - 1))
    assert columns.saturated_share(disparity, bits) == pytest.approx(expected, abs=1e-3)


def test_a_constant_label_is_saturated_and_has_no_edges() -> None:
    constant = np.ones((8, 8), np.float32)
    assert columns.saturated_share(constant, 16) == 1
    assert columns.edge_sharpness(constant, ramp(8, 8)) == 0


def test_agreement_is_the_correlation_and_ignores_scale_and_shift() -> None:
    random = np.random.default_rng(1)
    first, second = (random.random((30, 20)).astype(np.float32) for _ in range(2))
    assert columns.agreement(first, second) == pytest.approx(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    assert columns.agreement(first, 7 * first + 3) == pytest.approx(1)
    assert columns.agreement(first, -first) == pytest.approx(-1)


def test_constant_maps_agree_with_one_another_only() -> None:
    one, two = np.ones((5, 5), np.float32), np.full((5, 5), 2, np.float32)
    assert columns.agreement(one, two) == 1
    assert columns.agreement(one, ramp(5, 5)) == 0


def test_a_step_on_the_image_edge_is_sharper_than_its_blurred_copy_and_than_one_elsewhere() -> None:
    grey = np.zeros((40, 60), np.float32)
    grey[:, 30:] = 1
    step = grey + 1
    soft = cv2.GaussianBlur(step, (0, 0), 6)
    elsewhere = np.roll(step, 12, axis=1)
    sharp = columns.edge_sharpness(step, grey)
    assert sharp > columns.edge_sharpness(soft, grey) > columns.edge_sharpness(elsewhere, grey)
    assert columns.edge_sharpness(5 * step, grey) == pytest.approx(sharp)


def test_edge_sharpness_equals_a_slow_version() -> None:
    random = np.random.default_rng(2)
    disparity, grey = (random.random((16, 25)).astype(np.float32) for _ in range(2))

    def steepness(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, 1, mode="reflect").astype(np.float64)
        kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
        result = np.zeros(values.shape)
        for y, x in np.ndindex(values.shape):
            window = padded[y : y + 3, x : x + 3]
            result[y, x] = np.hypot((window * kernel).sum(), (window * kernel.T).sum())
        return result

    slope, contrast = steepness(disparity), steepness(grey)
    steepest = np.argsort(contrast.ravel())[-round(columns.EDGE_SHARE * contrast.size) :]
    expected = slope.ravel()[steepest].mean() / slope.mean()
    assert columns.edge_sharpness(disparity, grey) == pytest.approx(expected, rel=1e-4)


def test_columns_do_not_depend_on_where_the_array_lies_in_memory() -> None:
    random = np.random.default_rng(3)
    values = random.random((57, 71)).astype(np.float32)
    seen = set()
    for shift in range(16):
        room = np.empty(2 * (values.size + 16), np.float32)
        first = room[shift : shift + values.size].reshape(values.shape)
        second = room[-values.size :].reshape(values.shape)
        first[...], second[...] = values, values[::-1]
        agreed, sharp = columns.agreement(first, second), columns.edge_sharpness(first, second)
        seen.add((agreed, sharp, columns.relative_range(first), columns.saturated_share(first, 16)))
    assert len(seen) == 1


def test_the_device_measures_what_the_host_does() -> None:
    rng = np.random.default_rng(0)
    disparity = rng.random((7, 20, 30)).astype(np.float32)
    disparity[1], disparity[2], disparity[3, :10] = ramp(), 2.0, 0.0
    disparity[4] = 0.0
    grey, other = rng.random((7, 20, 30)).astype(np.float32), rng.random((7, 20, 30)).astype(np.float32)
    grey[5], other[1], other[2], other[6] = 1.0, 3 * ramp() + 1, 5.0, 1.0
    given, seen, second = (torch.from_numpy(each) for each in (disparity, grey, other))
    found = {
        "range": columns_there.relative_range(given),
        "saturated": columns_there.saturated_share(given, 10),
        "sharpness": columns_there.edge_sharpness(given, seen),
        "agreement": columns_there.agreement(given, second),
    }
    for row in range(7):
        expected = {
            "range": columns.relative_range(disparity[row]),
            "saturated": columns.saturated_share(disparity[row], 10),
            "sharpness": columns.edge_sharpness(disparity[row], grey[row]),
            "agreement": columns.agreement(disparity[row], other[row]),
        }
        assert {name: float(values[row]) for name, values in found.items()} == pytest.approx(
            expected, rel=1e-6, abs=1e-9
        )
