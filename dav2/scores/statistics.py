"""Confidence intervals and paired tests by bootstrap over images.

Pairs of one image share its scene, its light and its failure, so they are not independent: every resample draws whole
images (a clustered bootstrap). Both functions work on sums per image, so a resample is one row of multinomial counts
and a thousand resamples are one matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 1 << 22
"""Most resampling counts held at once, so that 62,000 images need no gigabyte."""


class Interval(NamedTuple):
    """A score with its percentile interval; ``nan`` where nothing was scored, bounds ``nan`` for a single image."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """``first − second`` on the same images, its interval, and the two-sided bootstrap p-value.

    All but the value are ``nan`` for a single image, which says nothing about others.
    """

    value: float
    low: float
    high: float
    p: float


def _resampled(sums: NDArray[np.float64], samples: int, seed: int) -> NDArray[np.float64]:
    """Column sums of ``sums`` (images, k) in each of ``samples`` resamples of its rows: (samples, k)."""
    images = len(sums)
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // images)
    shares = np.full(images, 1.0 / images)
    parts = [
        rng.multinomial(images, shares, size=min(step, samples - start)).astype(np.float64) @ sums
        for start in range(0, samples, step)
    ]
    return np.concatenate(parts)


def _columns(*arrays: ArrayLike) -> NDArray[np.float64]:
    columns = [np.asarray(array, dtype=np.float64).ravel() for array in arrays]
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"arrays of one length are needed, not {[len(column) for column in columns]}")
    return np.stack(columns, axis=1)


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of ``sum(numerators) / sum(denominators)`` over images.

    Args:
        numerators: per image, e.g. the number of pairs judged rightly.
        denominators: per image, e.g. its number of pairs; ones give the interval of a plain mean.
        samples: number of resamples.
        level: coverage of the interval.
        seed: of the resampling; the same seed gives the same interval.
    """
    sums = _columns(numerators, denominators)
    if len(sums) == 0 or sums[:, 1].sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    value = sums[:, 0].sum() / sums[:, 1].sum()
    if len(sums) == 1:
        return Interval(float(value), float("nan"), float("nan"))
    drawn = _resampled(sums, samples, seed)
    drawn = drawn[drawn[:, 1] > 0]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    denominators: ArrayLike,
    *,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Paired comparison of two models on the same images.

    Every resample draws the same images for both models, so what is hard for both cancels. The p-value is twice the
    smaller share of resamples on either side of zero, counted with the observed sample so that it is never 0.
    """
    sums = _columns(first, second, denominators)
    if len(sums) == 0 or sums[:, 2].sum() == 0:
        return Difference(float("nan"), float("nan"), float("nan"), float("nan"))
    value = (sums[:, 0].sum() - sums[:, 1].sum()) / sums[:, 2].sum()
    if len(sums) == 1:
        return Difference(float(value), float("nan"), float("nan"), float("nan"))
    drawn = _resampled(sums, samples, seed)
    drawn = drawn[drawn[:, 2] > 0]
    differences = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2]
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    count = len(differences) + 1
    p = 2 * min((1 + (differences <= 0).sum()) / count, (1 + (differences >= 0).sum()) / count)
    return Difference(float(value), float(low), float(high), float(min(1.0, p)))
