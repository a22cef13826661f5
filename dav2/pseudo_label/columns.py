"""What can be said of a label without knowing the truth: one number per label and per question.

Of depth all take disparity float32 (H, W) as the teacher gives it. None changes when the disparity is scaled; agreement
does not change when it is shifted either, since the teacher's disparity is known up to both. Normals, unit vectors
float32 (H, W, 3), are asked the same questions.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

EDGE_SHARE = 0.1
"""Share of the pixels of an image, those with the steepest brightness, that count as its edges."""


def relative_range(disparity: NDArray[np.float32]) -> float:
    """(maximum − minimum) / mean: 0 for a constant label, which teaches nothing."""
    low, high, mean = float(disparity.min()), float(disparity.max()), float(disparity.mean(dtype=np.float64))
    return (high - low) / mean if mean > 0 else 0.0


def saturated_share(disparity: NDArray[np.float32], bits: int) -> float:
    """Share of pixels that are stored as the lowest or the highest code of a ``bits``-bit label.

    Sky is rightly at the lowest one (disparity 0); a label that is nearly all ends holds no shape.
    """
    low, high = float(disparity.min()), float(disparity.max())
    if high <= low:
        return 1.0
    half_step = 0.5 * (high - low) / (2**bits - 1)
    return float(np.mean((disparity <= low + half_step) | (disparity >= high - half_step)))


def agreement(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Pearson correlation of two disparities of one image, −1 … 1: free of the unknown scale and shift.

    Two constant maps agree (1); a constant one and a varying one do not (0).
    """
    a = first.astype(np.float64).ravel()
    b = second.astype(np.float64).ravel()
    a -= a.mean()
    b -= b.mean()
    # Sums, not dot products: those of a BLAS library depend on its number of threads.
    norms = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    if norms == 0.0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return float(np.clip(np.sum(a * b) / norms, -1.0, 1.0))


def edge_sharpness(disparity: NDArray[np.float32], grey: NDArray[np.float32]) -> float:
    """How much steeper the label is at the edges of its image than on the whole: mean |∇d| there / mean |∇d|.

    1 says that the label's steps have nothing to do with the image's; blurred labels come close to it. 0 for a
    constant label, 1 for an image without any edge.

    Args:
        disparity: float32 (H, W), or normals (H, W, 3).
        grey: brightness of the image, float32 (H, W), any scale.
    """
    slope = _steepness(disparity)
    mean = float(slope.mean(dtype=np.float64))
    if mean == 0.0:
        return 0.0
    contrast = _steepness(grey)
    count = max(1, round(EDGE_SHARE * contrast.size))
    threshold = np.partition(contrast.ravel(), contrast.size - count)[contrast.size - count]
    edges = (contrast >= threshold) & (contrast > 0)
    return float(slope[edges].mean(dtype=np.float64)) / mean if edges.any() else 1.0


def _steepness(values: NDArray[np.float32]) -> NDArray[np.float32]:
    across = cv2.Sobel(values, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(values, cv2.CV_32F, 0, 1)
    # Not cv2.magnitude, whose last bit depends on where in memory the array lies.
    squares = across * across + down * down
    return np.sqrt(squares if values.ndim == 2 else squares.sum(axis=-1))


def spread(normals: NDArray[np.float32]) -> float:
    """1 − |mean of the vectors|, 0 … 1: 0 for a label that faces one way everywhere, which teaches nothing."""
    return 1.0 - float(np.linalg.norm(normals.mean(axis=(0, 1), dtype=np.float64)))


def mean_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean cosine of the angle between two fields of unit vectors of one image, −1 … 1."""
    return float(np.clip((first * second).sum(axis=-1, dtype=np.float64).mean(), -1.0, 1.0))
