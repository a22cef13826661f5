"""The vectorised metrics agree with definitions written out pixel by pixel in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dav2.scores.depth import NAMES, depth_metrics


def slow_metrics(prediction: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    pixels = [(float(p), float(d)) for p, d, m in zip(prediction.flat, target.flat, mask.flat, strict=True) if m]
    n = len(pixels)
    logs = [math.log(p) - math.log(d) for p, d in pixels]
    mean_log = sum(logs) / n
    result = {
        "abs_rel": sum(abs(p - d) / d for p, d in pixels) / n,
        "sq_rel": sum((p - d) ** 2 / d for p, d in pixels) / n,
        "rmse": math.sqrt(sum((p - d) ** 2 for p, d in pixels) / n),
        "rmse_log": math.sqrt(sum(e * e for e in logs) / n),
        "log10": sum(abs(math.log10(p) - math.log10(d)) for p, d in pixels) / n,
        "silog": 100 * math.sqrt(sum(e * e for e in logs) / n - mean_log**2),
        "i_rmse": math.sqrt(sum((1 / p - 1 / d) ** 2 for p, d in pixels) / n),
    }
    for k in (1, 2, 3):
        result[f"delta{k}"] = sum(max(p / d, d / p) < 1.25**k for p, d in pixels) / n
    return result


def _case(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.4, 80, (batch, 23, 31)).astype(np.float32)
    prediction = (target * rng.lognormal(0.05, 0.3, target.shape)).astype(np.float32)
    return torch.from_numpy(prediction), torch.from_numpy(target), torch.from_numpy(rng.random(target.shape) < 0.6)


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_equals_its_definition_in_float64(seed: int) -> None:
    prediction, target, mask = _case(seed)
    fast = depth_metrics(prediction, target, mask)
    assert tuple(fast) == NAMES
    for i in range(len(prediction)):
        slow = slow_metrics(prediction[i].numpy(), target[i].numpy(), mask[i].numpy())
        for name in NAMES:
            assert fast[name][i].item() == pytest.approx(slow[name], rel=1e-5), name


def test_a_perfect_prediction_has_no_error() -> None:
    _, target, mask = _case(0)
    for name, values in depth_metrics(target, target, mask).items():
        assert values.tolist() == ([1.0, 1.0] if name.startswith("delta") else [0.0, 0.0]), name


def test_silog_ignores_a_global_scale_and_keeps_its_precision() -> None:
    prediction, target, mask = _case(1)
    before, after = depth_metrics(prediction, target, mask), depth_metrics(prediction * 1000, target, mask)
    torch.testing.assert_close(before["silog"], after["silog"], rtol=1e-5, atol=0)


def test_pixels_outside_the_mask_have_no_influence() -> None:
    prediction, target, mask = _case(2)
    expected = depth_metrics(prediction, target, mask)
    prediction[~mask], target[~mask] = float("nan"), float("inf")
    for name, values in depth_metrics(prediction, target, mask).items():
        torch.testing.assert_close(values, expected[name], msg=name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_one_bad_pixel_makes_the_image_nan_and_leaves_the_others(value: float) -> None:
    prediction, target, mask = _case(3)
    row, column = mask[0].nonzero()[0]
    prediction[0, row, column] = value
    for name, values in depth_metrics(prediction, target, mask).items():
        assert torch.isnan(values).tolist() == [True, False], name


def test_an_empty_mask_gives_nan_for_every_metric() -> None:
    prediction, target, mask = _case(4, batch=1)
    assert all(torch.isnan(values).all() for values in depth_metrics(prediction, target, mask & False).values())
