"""Several predictions of one photograph, each known up to a scale and a shift, become one map and its uncertainty.

Ke et al. (arXiv 2312.02145, section 3.3) minimise the squared differences of all pairs of aligned maps over scales and
shifts. With maps centred, the best shifts are those that bring all means together, and what is left is a quadratic form
of the scales alone, ``sᵀ (n diag(G) − G) s``, with G the Gram matrix of the centred maps. All scales 0 would be best,
so a gauge is needed: that of the reference pulls the result to [0, 1] while it searches; here the scales' mean is held
instead, in units in which every map has spread 1, and one linear system gives the minimum exactly. Which gauge it is
does not show: the result is brought to [0, 1] in the end.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Reduction = Literal["median", "mean", "closest"]
FLAT = 1e-12
"""Variance below which a map counts as constant; values lie in [0, 1]."""


def align(members: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scales and shifts that bring maps together.

    Args:
        members: (E, H, W), finite.

    Returns:
        Scales, at least 0, and shifts, float64 (E,) each. A constant map gets scale 0. Where maps contradict each other
        so much that one would be turned upside down, all are brought to the same mean and spread instead.
    """
    rows = members.detach().flatten(1).double()
    means = rows.mean(dim=1, keepdim=True)
    centred = rows - means
    gram = (centred @ centred.T / rows.shape[1]).cpu().numpy()
    averages = means[:, 0].cpu().numpy()
    spread = np.sqrt(np.diag(gram))
    known = spread**2 > FLAT
    scales = np.zeros(len(rows))
    if known.any():
        unit = spread[known]
        correlation = gram[np.ix_(known, known)] / np.outer(unit, unit)
        scales[known] = _weights(correlation) / unit
    return scales, -scales * averages


def _weights(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimum of ``wᵀ (n − C) w`` with mean 1, for maps of spread 1; ones where it is no minimum over w > 0."""
    count = len(correlation)
    form = count * np.eye(count) - correlation
    # Maps that agree entirely leave the form singular along the direction that is wanted.
    found = np.linalg.solve(form + 1e-9 * count * np.eye(count), np.ones(count))
    return found / found.mean() if (found > 0).all() else np.ones(count)


def _aligned(members: Tensor, scales: NDArray[np.float64], shifts: NDArray[np.float64]) -> Tensor:
    factors = torch.from_numpy(np.stack([scales, shifts])).to(members.device, members.dtype)
    return members * factors[0][:, None, None] + factors[1][:, None, None]


def merge(members: Tensor, reduction: Reduction = "median") -> tuple[Tensor, Tensor]:
    """One map of several.

    Args:
        members: float32 (E, H, W), E ≥ 1.
        reduction: ``median`` (the lower one of an even number) or ``mean`` of every pixel.

    Returns:
        The map, float32 (H, W) in [0, 1], and its uncertainty in the same unit: median absolute deviation, or standard
        deviation. A single member is returned as it is, without any uncertainty (0).

    Raises:
        ValueError: another reduction.
    """
    if reduction == "closest":
        raise ValueError("reduction 'closest' is for normals; depth takes median or mean")
    if len(members) == 1:
        return members[0], torch.zeros_like(members[0])
    aligned = _aligned(members, *align(members))
    if reduction == "mean":
        merged, uncertainty = aligned.mean(dim=0), aligned.std(dim=0)
    else:
        merged = aligned.median(dim=0).values
        uncertainty = (aligned - merged).abs().median(dim=0).values
    low, high = merged.min(), merged.max()
    span = (high - low).clamp_min(1e-6)
    return (merged - low) / span, uncertainty / span
