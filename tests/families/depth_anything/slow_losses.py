"""The losses written the obvious way: one image, one pixel list at a time, numpy float64, no vectorisation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def normalised(values: list[float]) -> list[float]:
    """Minus the lower median, divided by the mean absolute deviation from it."""
    middle = sorted(values)[(len(values) - 1) // 2]
    spread = sum(abs(v - middle) for v in values) / len(values)
    return [(v - middle) / max(spread, 1e-6) for v in values]


def fitted(prediction: list[float], target: list[float]) -> list[float]:
    """The prediction after the best scale and shift towards the target."""
    matrix = np.stack([np.array(prediction), np.ones(len(prediction))], axis=1)
    scale, shift = np.linalg.lstsq(matrix, np.array(target), rcond=None)[0]
    return [scale * p + shift for p in prediction]


def groups_of(target: Array, mask: Mask, region: NDArray[np.uint8], pieces: int) -> list[list[tuple[int, int]]]:
    """Pixels of each CutMix region, each cut into equal pieces of its range of target values."""
    found = []
    for number in sorted(set(region.ravel().tolist())):
        pixels = [tuple(p) for p in np.argwhere(mask & (region == number))]
        if not pixels:
            continue
        low, high = min(target[p] for p in pixels), max(target[p] for p in pixels)
        for piece in range(pieces):
            chosen = []
            for p in pixels:
                place = (target[p] - low) / max(high - low, 1e-6)
                if min(math.floor(place * pieces), pieces - 1) == piece:
                    chosen.append(p)
            if chosen:
                found.append(chosen)
    return found


def residual(prediction: Array, target: Array, groups: list[list[tuple[int, int]]], alignment: str) -> Array:
    """Aligned prediction minus aligned target; nan where not used."""
    result = np.full(prediction.shape, np.nan)
    for pixels in groups:
        p, t = [float(prediction[q]) for q in pixels], [float(target[q]) for q in pixels]
        if max(t) - min(t) <= 1e-6:
            continue
        left, right = (normalised(p), normalised(t)) if alignment == "median" else (fitted(p, t), t)
        for q, a, b in zip(pixels, left, right, strict=True):
            result[q] = a - b
    return result


def ssi(
    prediction: Array,
    target: Array,
    mask: Mask,
    region: NDArray[np.uint8],
    trim: float,
    alignment: str,
    cuts: list[int],
) -> float:
    """Scale-and-shift-invariant loss of one image."""
    errors = []
    for pieces in cuts:
        value = residual(prediction, target, groups_of(target, mask, region, pieces), alignment)
        errors.append(np.abs(value) if alignment == "median" else value**2 / 2)
    with np.errstate(all="ignore"):
        counts = sum((~np.isnan(e)).astype(float) for e in errors)
        mean = np.where(counts > 0, sum(np.nan_to_num(e) for e in errors) / np.maximum(counts, 1), np.nan)
    used = ~np.isnan(mean)
    loss = 0.0
    for number in set(region.ravel().tolist()):
        inside = sorted(mean[used & (region == number)].tolist())
        kept = inside[: len(inside) - math.floor(trim * len(inside))]
        if kept:
            loss += sum(kept) / len(kept) * len(inside) / used.sum()
    return loss


def gradient(
    prediction: Array, target: Array, mask: Mask, region: NDArray[np.uint8], scales: int, alignment: str
) -> float:
    """Multi-scale gradient matching of one image."""
    whole = residual(prediction, target, groups_of(target, mask, region, 1), alignment)
    loss = 0.0
    for k in range(scales):
        value, part = whole[:: 2**k, :: 2**k], region[:: 2**k, :: 2**k]
        total = 0.0
        for row in range(value.shape[0]):
            for column in range(value.shape[1]):
                for below, right in ((row + 1, column), (row, column + 1)):
                    if below < value.shape[0] and right < value.shape[1] and part[below, right] == part[row, column]:
                        step = value[below, right] - value[row, column]
                        total += 0.0 if math.isnan(step) else abs(step)
        loss += total / max(1, int((~np.isnan(value)).sum()))
    return loss


def silog(prediction: Array, target: Array, mask: Mask, focus: float) -> float:
    """Scale-invariant logarithmic loss of one image."""
    d = [math.log(target[q]) - math.log(prediction[q]) for q in map(tuple, np.argwhere(mask))]
    return math.sqrt(sum(v * v for v in d) / len(d) - focus * (sum(d) / len(d)) ** 2)


def feature(features: Array, reference: Array, margin: float) -> float:
    """Feature alignment of one image, (N, C) each."""
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(features, reference, strict=True)]
    apart = [1 - c for c in cosines if c <= margin]
    return sum(apart) / len(apart) if apart else 0.0
