"""The columns of :mod:`dav2.pseudo_label.columns` for a whole batch, on the device where the labels are made.

The numbers are those of the host up to the rounding of sums; only they are then copied, and not the maps behind them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dav2.pseudo_label.columns import EDGE_SHARE


def relative_range(disparity: Tensor) -> Tensor:
    """(maximum − minimum) / mean of each map of (B, H, W): (B,)."""
    flat = disparity.flatten(1)
    mean = flat.mean(1, dtype=torch.float64)
    return torch.where(mean > 0, (flat.amax(1) - flat.amin(1)).double() / mean, 0.0)


def saturated_share(disparity: Tensor, bits: int) -> Tensor:
    """Share of pixels of each map that are stored as the lowest or the highest code: (B,)."""
    flat = disparity.flatten(1)
    low, high = flat.amin(1, keepdim=True).double(), flat.amax(1, keepdim=True).double()
    half_step = 0.5 * (high - low) / (2**bits - 1)
    ends = (flat <= (low + half_step).float()) | (flat >= (high - half_step).float())
    return torch.where((high > low)[:, 0], ends.double().mean(1), 1.0)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """Correlation of the maps of two batches (B, H, W), −1 … 1: (B,)."""
    a, b = (each.flatten(1).double() for each in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = (a.square().sum(1) * b.square().sum(1)).sqrt()
    both_constant = ~(a.any(1) | b.any(1))
    found = ((a * b).sum(1) / norms.where(norms > 0, 1.0)).clamp(-1, 1)
    return torch.where(norms > 0, found, both_constant.double())


def edge_sharpness(disparity: Tensor, grey: Tensor) -> Tensor:
    """How much steeper each label is at the edges of its image than on the whole: (B,) of two (B, H, W)."""
    slope, contrast = _steepness(disparity), _steepness(grey)
    mean = slope.mean(1, dtype=torch.float64)
    count = max(1, round(EDGE_SHARE * contrast.shape[1]))
    threshold = contrast.topk(count, dim=1).values[:, -1:]
    edges = (contrast >= threshold) & (contrast > 0)
    number = edges.sum(1)
    there = slope.double().where(edges, 0.0).sum(1) / number.clamp_min(1)
    sharpness = torch.where(number > 0, there / mean.where(mean > 0, 1.0), 1.0)
    return torch.where(mean > 0, sharpness, 0.0)


def _steepness(values: Tensor) -> Tensor:
    """Length of Sobel's gradient (B, H · W), edges mirrored about their last pixel as OpenCV does."""
    wide = F.pad(values[:, None].float(), (1, 1, 1, 1), mode="reflect")[:, 0]
    smooth_down = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    smooth_across = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
    across = smooth_down[:, :, 2:] - smooth_down[:, :, :-2]
    down = smooth_across[:, 2:] - smooth_across[:, :-2]
    return (across * across + down * down).sqrt().flatten(1)
