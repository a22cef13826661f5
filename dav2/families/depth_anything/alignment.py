"""Removing unknown scale and shift from a prediction and its target, so that the two can be compared.

A relative depth map is known up to ``scale * x + shift``. Two ways of removing both are published (Ranftl et al.,
arXiv 1907.01341, section 5): bring both maps to location 0 and spread 1 with robust statistics, or fit the prediction
to the target by least squares. Either is done per image, and inside an image per *region*: CutMix pastes a piece of
another photograph whose scale has nothing to do with the rest (arXiv 2401.10891, section 3.2).

Shapes: B images, H × W pixels. Everything is computed in the dtype given; call it with float32 or float64, never
bfloat16, whose 8 bits are too few for medians of 20 000 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SMALLEST_SCALE = 1e-6
"""Spread below which a map counts as constant. Targets lie in [0, 1], so this is far below one 16-bit step."""

SEGMENTS: dict[str, tuple[int, ...]] = {"global": (1,), "local": (4,), "hybrid": (1, 2, 4)}
"""Into how many pieces of the target's range each context is cut (Distill Any Depth, arXiv 2502.19204, section 3.1)."""


class Residual(NamedTuple):
    """Difference of the aligned maps.

    Attributes:
        value: (B, H, W), aligned prediction minus aligned target; 0 where ``used`` is false.
        used: bool (B, H, W), pixels that are valid and lie in a group whose target is not constant.
    """

    value: Tensor
    used: Tensor


def location_and_scale(values: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Median and mean absolute deviation from it, over the members of each row.

    ``t(d) = median(d)``, ``s(d) = 1/M Σ |d - t(d)|`` (arXiv 2401.10891, equation 3). The median of an even number of
    values is the lower one. Gradients flow through both. Rows without members give a finite, meaningless answer.

    Args:
        values: (B, N).
        member: bool (B, N).

    Returns:
        Location and scale, each (B, 1); the scale is at least ``SMALLEST_SCALE``.
    """
    considered = member | ~member.any(dim=1, keepdim=True)
    location = lower_median(values.where(considered, torch.nan))
    deviation = (values - location).abs().where(member, 0.0).sum(dim=1, keepdim=True)
    scale = deviation / member.sum(dim=1, keepdim=True).clamp_min(1)
    return location, scale.clamp_min(SMALLEST_SCALE)


def lower_median(values: Tensor) -> Tensor:
    """The lower median of each row, without its NaN: (B, 1); NaN where there is nothing else."""
    return median_by_sorting(values) if values.is_cuda else values.nanmedian(dim=1, keepdim=True).values


def median_by_sorting(values: Tensor) -> Tensor:
    """:func:`lower_median` on a GPU, where torch's selection takes twice as long and does not say which of several
    equal values it chose, so that gradients would not repeat."""
    known = values.isnan().logical_not().sum(dim=1, keepdim=True)
    # NaN go last.
    return values.sort(dim=1, stable=True).values.gather(1, (known - 1).clamp_min(0) // 2)


def robust_residual(prediction: Tensor, target: Tensor, members: list[Tensor]) -> Residual:
    """Both maps shifted by their median and divided by their mean absolute deviation, group by group.

    Args:
        prediction: (B, H, W).
        target: (B, H, W), finite at least where a group has members.
        members: bool (B, H, W) each; disjoint.
    """
    shape = prediction.shape
    p, t = prediction.flatten(1), target.flatten(1)
    value, used = torch.zeros_like(p), torch.zeros_like(p, dtype=torch.bool)
    for group in members:
        member = group.flatten(1)
        p_location, p_scale = location_and_scale(p, member)
        t_location, t_scale = location_and_scale(t.where(member, 0.0), member)
        informative = member & (t_scale > SMALLEST_SCALE)
        difference = (p - p_location) / p_scale - (t - t_location) / t_scale
        value = difference.where(informative, value)
        used = used | informative
    return Residual(value.view(shape), used.view(shape))


def least_squares(prediction: Tensor, target: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift that minimise ``Σ (scale * p + shift - t)²`` over the members of each row.

    Closed form of the 2 × 2 normal equations (arXiv 1907.01341, equation 5), on centred values: the textbook
    determinant ``Σp² M - (Σp)²`` cancels to noise in float32 when the spread of ``p`` is small beside its mean.
    A constant prediction gets scale 0, so its shift is the mean of the target.

    Returns:
        Scale and shift, each (B, 1).
    """
    count = member.sum(dim=1, keepdim=True).clamp_min(1)
    p_mean = prediction.where(member, 0.0).sum(dim=1, keepdim=True) / count
    t_mean = target.where(member, 0.0).sum(dim=1, keepdim=True) / count
    p_centred = (prediction - p_mean).where(member, 0.0)
    t_centred = (target - t_mean).where(member, 0.0)
    variance = (p_centred**2).sum(dim=1, keepdim=True) / count
    covariance = (p_centred * t_centred).sum(dim=1, keepdim=True) / count
    varied = variance > SMALLEST_SCALE**2
    scale = torch.where(varied, covariance / variance.where(varied, 1.0), 0.0)
    return scale, t_mean - scale * p_mean


def least_squares_residual(prediction: Tensor, target: Tensor, members: list[Tensor]) -> Residual:
    """The prediction fitted to the target by least squares, group by group; the target stays as it is.

    Args and shapes as in :func:`robust_residual`.
    """
    shape = prediction.shape
    p, t = prediction.flatten(1), target.flatten(1)
    value, used = torch.zeros_like(p), torch.zeros_like(p, dtype=torch.bool)
    for group in members:
        member = group.flatten(1)
        scale, shift = least_squares(p, t, member)
        _, spread = location_and_scale(t.where(member, 0.0), member)
        informative = member & (spread > SMALLEST_SCALE)
        value = (scale * p + shift - t).where(informative, value)
        used = used | informative
    return Residual(value.view(shape), used.view(shape))


def regions(mask: Tensor, region: Tensor | None) -> list[Tensor]:
    """Valid pixels of each CutMix region, bool (B, H, W) each; one group where nothing was pasted."""
    if region is None or not bool(region.any()):
        return [mask]
    return [mask & (region == number) for number in range(int(region.max()) + 1)]


def _segments(target: Tensor, members: list[Tensor], count: int) -> Iterator[Tensor]:
    """Cut each group into ``count`` equal pieces of its own range of target values."""
    for member in members:
        low = target.where(member, torch.inf).amin(dim=(1, 2), keepdim=True)
        high = target.where(member, -torch.inf).amax(dim=(1, 2), keepdim=True)
        place = (target - low) / (high - low).clamp_min(SMALLEST_SCALE)
        piece = (place.nan_to_num() * count).floor().clamp(0, count - 1)
        for number in range(count):
            yield member & (piece == number)


def contexts(
    target: Tensor, members: list[Tensor], normalisation: Literal["global", "local", "hybrid"]
) -> list[list[Tensor]]:
    """Groups of pixels that are normalised together, one list of disjoint groups for each context."""
    return [members if count == 1 else list(_segments(target, members, count)) for count in SEGMENTS[normalisation]]
