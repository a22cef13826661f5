"""Angles between predicted and true surface normals of one image.

With a the angle in degrees between prediction and truth at a valid pixel (Bansal et al., arXiv 1604.01347; the set of
thresholds of DSINE and Marigold):

===================  ================================
mean, median         of a; the median of an even number of pixels is the mean of the middle two
below_5 … below_30   share of a < 5, 7.5, 11.25, 22.5, 30
===================  ================================

Values are per image and are averaged over images, as Marigold's evaluation does; DSINE pools the pixels of all images.
"""

from __future__ import annotations

import torch
from torch import Tensor

THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)
"""Degrees."""
NAMES = ("mean", "median", *(f"below_{each:g}" for each in THRESHOLDS))


def angles(prediction: Tensor, target: Tensor) -> Tensor:
    """Degrees between two fields of vectors (…, 3, H, W) of any length, float64 (…, H, W).

    atan2 of |p × t| and p · t keeps its digits where the two are nearly parallel, where the arc cosine loses half of
    them. A vector of length 0 stands at 90° to everything, as torch's cosine similarity has it.
    """
    p, t = prediction.double(), target.double()
    cosine = (p * t).sum(-3)
    sine = torch.linalg.cross(p, t, dim=-3).norm(dim=-3)
    nothing = (cosine == 0) & (sine == 0)
    return torch.where(nothing, 90.0, torch.rad2deg(torch.atan2(sine, cosine)))


def normal_metrics(prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, float]:
    """All metrics of :data:`NAMES` for one image.

    Args:
        prediction: (3, H, W), of any length > 0.
        target: (3, H, W) unit vectors; anything outside of ``mask``.
        mask: (H, W) bool.

    Returns:
        Name → value; all ``nan`` where the mask is empty or the prediction is not finite somewhere inside of it.
    """
    errors = angles(prediction, target)[mask]
    if not errors.numel() or not bool(torch.isfinite(errors).all()):
        return dict.fromkeys(NAMES, float("nan"))
    found = {"mean": float(errors.mean()), "median": float(_median(errors))}
    return found | {f"below_{each:g}": float((errors < each).double().mean()) for each in THRESHOLDS}


def _median(values: Tensor) -> Tensor:
    ordered = values.sort().values
    middle = values.numel() // 2
    return ordered[middle] if values.numel() % 2 else (ordered[middle - 1] + ordered[middle]) / 2
