"""Merging members: the minimum against a search for it, diffusers' own merging, and members that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from dav2.families.marigold.ensemble import align, merge
from dav2.scores.alignment import apply, least_squares

SHAPE = (48, 64)


def members(count: int = 6, noise: float = 0.03, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map in [0, 1], and noisy copies with a scale and a shift of their own."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.linspace(0, 1, SHAPE[0])[:, None], torch.linspace(0, 1, SHAPE[1])
    clean = 0.5 * y + 0.4 * torch.sin(6 * x) * y
    clean = (clean - clean.min()) / (clean.max() - clean.min())
    scale = 0.5 + 0.5 * torch.rand(count, 1, 1, generator=generator)
    shift = (1 - scale) * torch.rand(count, 1, 1, generator=generator)
    slow = F.interpolate(torch.randn(count, 1, 6, 6, generator=generator), SHAPE, mode="bilinear")[:, 0]
    noisy = clean * scale + shift + noise * (torch.randn(count, *SHAPE, generator=generator) + 2 * slow)
    return clean, noisy.clamp(0, 1)


def error(found: Tensor, clean: Tensor) -> float:
    mask = torch.ones_like(clean, dtype=torch.bool)
    return float((apply(found, *least_squares(found, clean, mask)) - clean).abs().mean())


def pairwise(given: Tensor, scales: np.ndarray, shifts: np.ndarray) -> float:
    """Mean squared difference of all pairs of aligned maps: what the alignment makes least."""
    rows = given.double().flatten(1)
    aligned = rows * torch.from_numpy(scales)[:, None] + torch.from_numpy(shifts)[:, None]
    differences = [(a - b).square().mean() for n, a in enumerate(aligned) for b in aligned[n + 1 :]]
    return float(torch.stack(differences).mean())


def test_the_closed_form_is_what_a_search_finds() -> None:
    _, given = members(5)
    count, spread = 5, given.flatten(1).double().std(dim=1, correction=0).numpy()

    def objective(free: np.ndarray) -> float:
        # The gauge: scales of mean 1 in units of spread, shifts of mean 0.
        weights = np.append(free[:4], count - free[:4].sum())
        shifts = np.append(free[4:], -free[4:].sum())
        return pairwise(given, weights / spread, shifts)

    found = minimize(objective, np.concatenate([np.ones(4), np.zeros(4)]), method="BFGS", options={"gtol": 1e-9})
    scales, shifts = align(given)
    assert (scales * spread).mean() == pytest.approx(1)
    assert pairwise(given, scales, shifts) == pytest.approx(found.fun, rel=1e-5)
    assert (scales * spread)[:4] == pytest.approx(found.x[:4], abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_the_error_is_no_larger_than_that_of_diffusers(noise: float, seed: int) -> None:
    clean, given = members(8, noise, seed)
    ours, uncertainty = merge(given)
    theirs, _ = MarigoldDepthPipeline.ensemble_depth(given[:, None], True, True, False)
    assert error(ours, clean) <= 1.01 * error(theirs[0, 0], clean)
    assert error(ours, clean) < 0.7 * float(np.mean([error(each, clean) for each in given]))
    assert ours.min() == 0 and ours.max() == pytest.approx(1) and bool((uncertainty >= 0).all())


def test_uncertainty_is_larger_where_members_differ() -> None:
    _, given = members(8, 0.005)
    given[::2, 10:20, 10:20] = 0.9
    given[1::2, 10:20, 10:20] = 0.1
    for reduction in ("median", "mean"):
        _, uncertainty = merge(given, reduction)  # type: ignore[arg-type]
        assert float(uncertainty[10:20, 10:20].mean()) > 5 * float(uncertainty[30:].mean())


def test_scale_and_shift_of_members_do_not_show() -> None:
    _, given = members(4)
    changed = (
        given * torch.tensor([0.5, 0.8, 1.0, 0.3])[:, None, None] + torch.tensor([0.2, 0, 0.1, 0.5])[:, None, None]
    )
    assert (merge(given)[0] - merge(changed)[0]).abs().max() < 1e-4


def test_members_that_say_nothing_or_the_opposite() -> None:
    _, given = members(4)
    alone, none = merge(given[:1])
    assert (alone == given[0]).all() and not none.any()
    flat = torch.cat([given[:3], torch.full((1, *SHAPE), 0.4)])
    scales, _ = align(flat)
    assert scales[3] == 0 and (scales[:3] > 0).all() and bool(merge(flat)[0].isfinite().all())
    constant, uncertainty = merge(torch.full((3, *SHAPE), 0.4))
    assert bool(constant.isfinite().all()) and not uncertainty.any()
    opposed = torch.cat([given[:1], 1 - given[:1]])
    assert (align(opposed)[0] > 0).all() and bool(merge(opposed)[0].isfinite().all())
    same = given[:1].repeat(3, 1, 1)
    assert error(merge(same)[0], given[0]) < 1e-5
