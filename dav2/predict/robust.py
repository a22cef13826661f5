"""A line through points of which up to half may be wrong.

First the line through two points whose residuals have the least median (Rousseeuw 1984), among pairs drawn at random
from a fixed seed; then least squares with Tukey's weights around it, whose scale is the median absolute residual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PAIRS = 500
MOST_POINTS = 20_000
"""Points that are looked at, evenly drawn from more."""
ROUNDS = 30
TUKEY = 4.685
"""Residuals, in standard deviations, that count for nothing: 95 % efficiency where all points are right."""
NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
ROUNDING = 1e-6
"""Residuals, as a share of the values' range, that are no error."""
Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """``y = scale · x + shift``.

    Attributes:
        agree: share of the points that have any weight.
    """

    scale: float
    shift: float
    agree: float


def line(x: Points, y: Points) -> Line | None:
    """The line of most points; ``None`` where all lie at one x.

    Args:
        x, y: float64 (N,), N at least 2, finite.
    """
    x, y = _few(x, y)
    if np.ptp(x) <= ROUNDING * max(abs(float(x.max())), abs(float(x.min()))):
        return None
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(x), (2, PAIRS))
    if len(x) * (len(x) - 1) // 2 <= PAIRS:
        first, second = np.triu_indices(len(x), 1)
    apart = np.abs(x[first] - x[second]) > ROUNDING * np.ptp(x)
    first, second = first[apart], second[apart]
    if len(first) == 0:
        first, second = np.array([x.argmin()]), np.array([x.argmax()])
    scales = (y[second] - y[first]) / (x[second] - x[first])
    shifts = y[first] - scales * x[first]
    medians = [float(np.median(np.abs(y - a * x - b))) for a, b in zip(scales, shifts, strict=True)]
    best = int(np.argmin(medians))
    scale, shift, weights = float(scales[best]), float(shifts[best]), np.ones(len(x))
    for _ in range(ROUNDS):
        weights = _weights(y - scale * x - shift, y)
        middle_x, middle_y = np.average(x, weights=weights), np.average(y, weights=weights)
        spread = float((weights * (x - middle_x) ** 2).sum())
        if spread <= ROUNDING**2 * float(np.ptp(x)) ** 2:
            break
        before = scale, shift
        scale = float((weights * (x - middle_x) * (y - middle_y)).sum() / spread)
        shift = float(middle_y - scale * middle_x)
        if np.allclose(before, (scale, shift), rtol=1e-9, atol=1e-12):
            break
    return Line(scale, shift, float((weights > 0).mean()))


def offset(x: Points, y: Points) -> Line:
    """The same with scale 1: from the median difference, which it is with Tukey's weights around it."""
    x, y = _few(x, y)
    apart = y - x
    shift, weights = float(np.median(apart)), np.ones(len(x))
    for _ in range(ROUNDS):
        weights = _weights(apart - shift, y)
        shift = float(np.average(apart, weights=weights))
    return Line(1.0, shift, float((weights > 0).mean()))


def _few(x: Points, y: Points) -> tuple[Points, Points]:
    if len(x) <= MOST_POINTS:
        return x, y
    chosen = np.linspace(0, len(x) - 1, MOST_POINTS).astype(np.intp)
    return x[chosen], y[chosen]


def _weights(residuals: Points, values: Points) -> Points:
    """Tukey's biweight, (1 − (r/c)²)² up to c; at least half of the points have some."""
    deviation = NORMAL * float(np.median(np.abs(residuals)))
    limit = TUKEY * max(deviation, ROUNDING * float(np.abs(values).max()))
    return np.asarray(np.where(np.abs(residuals) < limit, (1 - (residuals / limit) ** 2) ** 2, 0.0))
