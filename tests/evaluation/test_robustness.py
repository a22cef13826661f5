"""Image variants keep the size, are reproducible, and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from dav2.data.frame import Frame
from dav2.evaluation.robustness import KINDS, fog, relative_distance, transform


def _frame(depth: bool = True) -> Frame:
    rng = np.random.default_rng(0)
    rgb = rng.integers(40, 200, (60, 90, 3), dtype=np.uint8)
    distance = np.linspace(20, 1, 60, dtype=np.float32)[:, None].repeat(90, 1)
    distance[:5] = np.inf
    return Frame("da2k/outdoor/a", rgb, distance if depth else None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_has_the_size_of_the_image_and_is_the_same_every_time(kind: str) -> None:
    frame = _frame()
    first, second = (transform(kind, seed=3)(frame) for _ in range(2))
    assert first.shape == frame.rgb.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    assert np.abs(first.astype(int) - frame.rgb).mean() > 1


def test_noise_depends_on_seed_and_frame() -> None:
    frame = _frame()
    other = Frame("da2k/outdoor/b", frame.rgb)
    images = [transform("noise", 0)(frame), transform("noise", 1)(frame), transform("noise", 0)(other)]
    assert len({image.tobytes() for image in images}) == 3


def test_darkness_is_darker_and_snow_is_brighter() -> None:
    frame = _frame()
    assert transform("dark", 0)(frame).mean() < 0.6 * frame.rgb.mean()
    assert transform("snow", 0)(frame).mean() > frame.rgb.mean()


def test_fog_hides_what_is_far_and_leaves_what_is_near() -> None:
    frame = _frame()
    foggy = transform("fog", 0)(frame)
    contrast = foggy.astype(float).std(axis=(1, 2))
    assert contrast[:5].max() < 0.2 * contrast[-5:].min()
    np.testing.assert_array_equal(fog(frame.rgb, np.zeros((60, 90), np.float32)), frame.rgb)


def test_fog_without_truth_uses_the_reference_and_refuses_to_guess() -> None:
    frame = _frame(depth=False)
    distance = np.linspace(1, 0, 6, dtype=np.float32)[:, None].repeat(9, 1)
    foggy = transform("fog", 0, {frame.key: distance})(frame)
    assert foggy[:10].std() < foggy[-10:].std()
    with pytest.raises(ValueError, match="fog needs depth"):
        transform("fog", 0, {})(frame)


def test_relative_distance_falls_with_disparity_from_one_to_zero() -> None:
    distance = relative_distance(np.array([[0.0, 2.0, 4.0]], np.float32))
    assert distance.tolist()[0] == sorted(distance.tolist()[0], reverse=True)
    assert distance[0, 0] == pytest.approx(1)
    assert distance[0, 2] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(relative_distance(np.ones((2, 2), np.float32))).all()


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="there are: dark, fog"):
        transform("rain", 0)
