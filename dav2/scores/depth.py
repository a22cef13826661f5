"""Depth errors of one image or a batch, in metres (or whatever unit both maps share).

Definitions follow Eigen et al. (arXiv 1406.2283) as used since by KITTI, ZoeDepth and Depth Anything; with prediction
p, truth d and the mean over valid pixels:

===========  ==========================================
abs_rel      mean |p − d| / d
sq_rel       mean (p − d)² / d
rmse         sqrt(mean (p − d)²)
rmse_log     sqrt(mean (ln p − ln d)²)
log10        mean |log10 p − log10 d|
delta1..3    share of max(p / d, d / p) < 1.25^k
silog        100 · sqrt(mean e² − (mean e)²), e = ln p − ln d
i_rmse       sqrt(mean (1/p − 1/d)²)
===========  ==========================================

Elementwise values are float32, sums float64: the slow float64 version in the tests agrees to 1e-5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3", "silog", "i_rmse")
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3", "boundary_f1", "accuracy"})


def depth_metrics(prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All metrics of :data:`NAMES` per image.

    Args:
        prediction: (..., H, W) depth, positive inside ``mask``.
        target: (..., H, W) depth, positive inside ``mask``.
        mask: (..., H, W) bool.

    Returns:
        Name → float64 (...). Every metric of an image is ``nan`` when its mask is empty or its prediction is not
        finite and positive somewhere inside the mask: a bad pixel is never averaged away.
    """
    p = torch.where(mask, prediction, 1).float()
    d = torch.where(mask, target, 1).float()
    count = mask.sum((-2, -1)).double()

    def mean(values: Tensor) -> Tensor:
        return values.sum((-2, -1), dtype=torch.float64) / count

    # Outside the mask p = d = 1, where every term is exactly zero; the deltas and the centred term need the mask.
    relative = p / d
    e = relative.log()
    mean_e = mean(e)
    centred = (e - mean_e.float()[..., None, None]) * mask
    error = e.abs()
    difference = p - d
    inverse = p.reciprocal() - d.reciprocal()
    result = {
        "abs_rel": mean((relative - 1).abs()),
        "sq_rel": mean(difference * difference / d),
        "rmse": mean(difference.square()).sqrt(),
        "rmse_log": mean(e.square()).sqrt(),
        "log10": mean(error) / math.log(10),
        "silog": 100 * mean(centred.square()).sqrt(),
        "i_rmse": mean(inverse.square()).sqrt(),
    }
    for power in (1, 2, 3):
        result[f"delta{power}"] = ((error < power * math.log(1.25)) & mask).sum((-2, -1)) / count
    good = (mask & (prediction > 0) & (prediction < torch.inf)).sum((-2, -1)) == count
    nan = torch.full_like(count, float("nan"))
    return {name: torch.where(good, result[name], nan) for name in NAMES}
