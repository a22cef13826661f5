"""Are depth edges where object edges are?

Two measures. *Boundary F1* (Depth Pro, arXiv 2410.02073, section 3.2) asks of every pair of neighbouring pixels whether
one occludes the other, and needs no edge detector. *Depth boundary errors* (iBims-1, arXiv 1805.01328, section 4.4) are
distances in pixels between the edges a Canny detector finds in prediction and truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATIOS = torch.linspace(1.05, 1.25, 10)
"""Depth ratios from which a neighbour counts as an occluder; the F1 at each is weighted by the ratio."""
MAX_DISTANCE = 10.0
"""Pixels; an edge farther than this from its counterpart has none."""


def _log_steps(depth: Tensor) -> tuple[Tensor, Tensor]:
    """ln of the depth ratio of horizontal (H, W−1) and vertical (H−1, W) neighbours."""
    log = depth.log()
    return log[:, 1:] - log[:, :-1], log[1:] - log[:-1]


def boundary_f1(depth: Tensor, target: Tensor, mask: Tensor) -> float:
    """Boundary F1 in [0, 1], larger is better; ``nan`` where the truth has no boundary at all.

    For a ratio t, pixel j lies behind its neighbour i where depth(j)/depth(i) > t. Precision and recall of these
    relations are averaged over the four directions, and their F1 over :data:`RATIOS` with the ratios as weights.

    Args:
        depth: (H, W) prediction, > 0. The measure is blind to a global scale.
        target: (H, W) truth, > 0 inside ``mask``.
        mask: (H, W) bool; a pair counts where both its pixels do.
    """
    rates = _rates(depth, target, mask)
    if rates is None:
        return math.nan
    precision, recall = rates
    return _weighted(2 * precision * recall / (precision + recall).clamp_min(1e-12))


def boundary_recall(depth: Tensor, target: Tensor, mask: Tensor) -> float:
    """Share in [0, 1] of the true relations of :func:`boundary_f1` that a prediction has too, weighted alike; ``nan``
    where the truth has no boundary at all."""
    rates = _rates(depth, target, mask)
    return math.nan if rates is None else _weighted(rates[1])


def _weighted(values: Tensor) -> float:
    weights = RATIOS.to(values.device)
    return float((values * weights).sum() / weights.sum())


def _rates(depth: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Precision and recall at each of :data:`RATIOS`; ``None`` where the truth has no boundary."""
    thresholds = RATIOS.log().to(depth.device)
    predicted_steps, true_steps = _log_steps(depth), _log_steps(torch.where(mask, target, 1))
    both = (mask[:, 1:] & mask[:, :-1], mask[1:] & mask[:-1])
    precision = torch.zeros(len(RATIOS), device=depth.device)
    recall = torch.zeros(len(RATIOS), device=depth.device)
    found = 0
    for predicted_step, true_step, inside in zip(predicted_steps, true_steps, both, strict=True):
        steps = torch.stack([predicted_step[inside], true_step[inside]]).nan_to_num(nan=0.0)
        steps = steps[:, steps.abs().amax(0) > thresholds[0]]  # A few percent of them, in most pictures.
        for sign in (1, -1):
            predicted, true, hits = _relations(sign * steps, thresholds)
            precision += hits / predicted.clamp_min(1) / 4
            recall += hits / true.clamp_min(1) / 4
            found += int(true[0])
    return None if found == 0 else (precision, recall)


def _relations(steps: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many steps (2, N), of prediction and truth, exceed each threshold in the one, in the other, and in both.

    A step is counted once, by how many thresholds it exceeds in either map, instead of being held against all of them.
    """
    kinds = len(thresholds) + 1
    predicted, true = torch.bucketize(steps, thresholds)
    table = torch.bincount(predicted * kinds + true, minlength=kinds**2).view(kinds, kinds)
    at_least = table.flip(0, 1).cumsum(0).cumsum(1).flip(0, 1)
    return at_least[1:, 0], at_least[0, 1:], at_least.diagonal()[1:]


def depth_edges(depth: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Canny edges of a depth map scaled to [0, 1] over ``mask``, with the settings of the iBims-1 evaluation code."""
    from skimage.feature import canny

    known = depth[mask]
    low, high = float(known.min()), float(known.max())
    scaled = (np.where(mask, depth, high) - low) / max(high - low, 1e-12)
    edges: NDArray[np.bool_] = canny(scaled, sigma=math.sqrt(2), low_threshold=0.15, high_threshold=0.3, mask=mask)
    return edges


def boundary_errors(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> tuple[float, float]:
    """Depth boundary errors in pixels: accuracy and completeness, smaller is better.

    Accuracy is the mean distance of predicted edge pixels to the nearest true one, over those nearer than
    :data:`MAX_DISTANCE`. Completeness is the mean distance over the edge pixels of both maps to the nearest of the
    other, each distance bounded by :data:`MAX_DISTANCE`. Without a predicted edge near a true one both are
    :data:`MAX_DISTANCE`; without a true edge both are ``nan``.
    """
    from scipy.ndimage import distance_transform_edt

    if not true.any():
        return math.nan, math.nan
    if not predicted.any():
        return MAX_DISTANCE, MAX_DISTANCE
    to_true, to_predicted = distance_transform_edt(~true), distance_transform_edt(~predicted)
    distances = to_true[predicted]
    near = distances[distances < MAX_DISTANCE]
    if near.size == 0:
        return MAX_DISTANCE, MAX_DISTANCE
    both = np.concatenate([distances, to_predicted[true]]).clip(max=MAX_DISTANCE)
    return float(near.mean()), float(both.mean())


def boundary_scores(depth: Tensor, target: Tensor, mask: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The scores asked for by a protocol: ``boundary_f1``, ``dbe_accuracy``, ``dbe_completeness``."""
    scores: dict[str, float] = {}
    if "f1" in names:
        scores["boundary_f1"] = boundary_f1(depth, target, mask)
    if "dbe" in names:
        inside = mask.cpu().numpy()
        edges = [depth_edges(each.cpu().numpy(), inside) for each in (depth, target)]
        scores["dbe_accuracy"], scores["dbe_completeness"] = boundary_errors(*edges)
    return scores
