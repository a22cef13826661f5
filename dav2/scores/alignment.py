"""Fit a relative prediction to ground truth before it is measured.

Affine-invariant models predict disparity (or depth) up to a scale and a shift per image. A protocol says in which
space both are fitted and how; this module only holds the arithmetic. Everything is batched over leading dimensions,
runs on CPU or GPU, and sums in float64 because 300,000 squared float32 values lose four digits otherwise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def least_squares(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scale ``s`` and shift ``t`` that minimise ``sum over mask of (s · prediction + t − target)²``.

    Closed form of the two normal equations (MiDaS, arXiv 1907.01341, eq. 4), written with centred values: the raw
    2 × 2 system is nearly singular when the prediction's mean is large against its spread.

    Args:
        prediction: (..., H, W).
        target: (..., H, W).
        mask: (..., H, W) bool; pixels that count.

    Returns:
        ``s`` and ``t``, float64 (...). A constant prediction gives ``s = 0`` and the mean target; an empty mask, or a
        prediction that is not finite inside it, gives ``nan``.
    """
    weight = mask.double()
    p = torch.where(mask, prediction, 0).double()
    y = torch.where(mask, target, 0).double()
    count = weight.sum((-2, -1))
    mean_p = p.sum((-2, -1)) / count
    mean_y = y.sum((-2, -1)) / count
    centred = (p - mean_p[..., None, None]) * weight
    variance = (centred * centred).sum((-2, -1))
    covariance = (centred * (y - mean_y[..., None, None])).sum((-2, -1))
    spread = torch.finfo(torch.float32).eps ** 2 * count * mean_p.square()
    scale = torch.where(variance <= spread, torch.zeros_like(variance), covariance / variance)
    return scale, mean_y - scale * mean_p


def median_scale(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Scale that makes the median of the prediction that of the target, over ``mask``; one image (H, W).

    Returns:
        float64 scalar; ``nan`` for an empty mask.
    """
    if not bool(mask.any()):
        return torch.full((), float("nan"), dtype=torch.float64, device=prediction.device)
    # Of an even number of pixels the mean of the middle two, as NumPy has it; torch's median is the lower one.
    both = [float(np.median(each[mask].double().cpu().numpy())) for each in (target, prediction)]
    return torch.tensor(both[0] / both[1] if both[1] else float("nan"), dtype=torch.float64, device=prediction.device)


def apply(prediction: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``scale · prediction + shift`` per image, in the dtype of ``prediction``."""
    return (prediction.double() * scale[..., None, None] + shift[..., None, None]).to(prediction.dtype)


def ransac(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of the largest set of pixels that agree, by RANSAC (Fischler and Bolles, 1981).

    As Pixel-Perfect Depth (arXiv 2510.07316) measures: lines through two pixels drawn at random; a pixel agrees when
    its error is at most the median absolute deviation of the target; drawing ends after 1,000 lines, or when a better
    one is unlikely (probability 1 %); least squares over the pixels that agree with the best line. The draw is the
    same each time. Where no line has anything to say (a constant target), least squares over all pixels.

    Args:
        prediction: (H, W), one image.
        target: (H, W).
        mask: (H, W) bool; pixels that count.

    Returns:
        Scale and shift, float64 scalars.
    """
    from sklearn.linear_model import RANSACRegressor

    p, y = prediction[mask].double().cpu().numpy(), target[mask].double().cpu().numpy()
    deviation = float(np.median(np.abs(y - np.median(y)))) if len(y) else 0.0
    if len(y) < 2 or deviation == 0 or p.min() == p.max():
        return least_squares(prediction, target, mask)
    fitted = RANSACRegressor(max_trials=1000, random_state=0).fit(p[:, None], y)
    line = fitted.estimator_
    return tuple(  # type: ignore[return-value]
        torch.tensor(float(value), dtype=torch.float64, device=prediction.device)
        for value in (line.coef_[0], line.intercept_)
    )
