"""Alignment agrees with a general least-squares solver and says ``nan`` rather than guess."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dav2.scores import alignment


def _maps(rng: np.random.Generator, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    prediction = torch.from_numpy(rng.gamma(2.0, 1.0, (batch, 12, 17)).astype(np.float32))
    target = torch.from_numpy(rng.gamma(2.0, 1.0, (batch, 12, 17)).astype(np.float32))
    mask = torch.from_numpy(rng.random((batch, 12, 17)) < 0.7)
    return prediction, target, mask


def test_least_squares_equals_a_general_solver() -> None:
    prediction, target, mask = _maps(np.random.default_rng(0))
    scale, shift = alignment.least_squares(prediction, target, mask)
    for i in range(len(prediction)):
        p, y = prediction[i][mask[i]].double().numpy(), target[i][mask[i]].double().numpy()
        expected = np.linalg.lstsq(np.stack([p, np.ones_like(p)], 1), y, rcond=None)[0]
        np.testing.assert_allclose([scale[i], shift[i]], expected, rtol=1e-10)


def test_least_squares_recovers_an_exact_relation_far_from_zero() -> None:
    target = torch.linspace(1, 2, 600, dtype=torch.float64).reshape(20, 30)
    prediction = (target - 0.25) / 3 + 1e4
    scale, shift = alignment.least_squares(prediction, target, torch.ones(20, 30, dtype=torch.bool))
    assert scale.item() == pytest.approx(3.0, rel=1e-4)
    fitted = alignment.apply(prediction, scale, shift)
    torch.testing.assert_close(fitted, target, rtol=0, atol=1e-5)


def test_masked_pixels_have_no_influence_even_when_not_finite() -> None:
    prediction, target, mask = _maps(np.random.default_rng(1))
    spoiled_p, spoiled_y = prediction.clone(), target.clone()
    spoiled_p[~mask], spoiled_y[~mask] = float("nan"), float("inf")
    torch.testing.assert_close(
        alignment.least_squares(spoiled_p, spoiled_y, mask), alignment.least_squares(prediction, target, mask)
    )


def test_a_constant_prediction_is_fitted_by_the_mean_target() -> None:
    _, target, mask = _maps(np.random.default_rng(2), batch=1)
    scale, shift = alignment.least_squares(torch.full_like(target, 0.3), target, mask)
    assert scale.item() == 0
    assert shift.item() == pytest.approx(target[mask].double().mean().item())


def test_an_empty_mask_or_a_nan_inside_it_gives_nan() -> None:
    prediction, target, mask = _maps(np.random.default_rng(3))
    mask[0] = False
    prediction[1][mask[1]] = float("nan")
    scale, shift = alignment.least_squares(prediction, target, mask)
    assert torch.isnan(scale).tolist() == [True, True, False]
    assert torch.isnan(shift).tolist() == [True, True, False]


def test_median_scale_makes_the_medians_equal() -> None:
    prediction, target, mask = (each[0] for each in _maps(np.random.default_rng(4)))
    scale = alignment.median_scale(prediction, target, mask)
    scaled = (scale * prediction[mask].double()).numpy()
    assert np.median(scaled) == pytest.approx(np.median(target[mask].double().numpy()))
    assert torch.isnan(alignment.median_scale(prediction, target, torch.zeros_like(mask)))
