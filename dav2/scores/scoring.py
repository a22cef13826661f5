"""One prediction against one truth, by the rules of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dav2.maps import Maps, Quantity
from dav2.scores import alignment
from dav2.scores.depth import depth_metrics
from dav2.scores.protocols import Protocol

Map = Callable[[Tensor], Tensor]

NO_PIXELS = "too few valid pixels"
NOT_FINITE = "prediction is not finite"
WRONG_SIZE = "prediction has another size"
NO_MAP = "no map of that name"
UNREADABLE_MAP = "map cannot be read"
UNREADABLE = "frame cannot be read"
NO_TRUTH = "frame has no depth"
MODEL_FAULTS = frozenset({NOT_FINITE, WRONG_SIZE})
"""Problems that are the model's: they void the mean, because leaving the frame out would flatter it."""


class Scored(NamedTuple):
    """Metrics of one frame, or the reason there are none; ``depth`` is the fitted prediction in the truth's unit."""

    metrics: dict[str, float]
    problem: str | None
    depth: Tensor | None = None


def valid_mask(target: Tensor, protocol: Protocol) -> Tensor:
    """Pixels (H, W) that count: known, not sky, inside range and crop."""
    mask = torch.isfinite(target) & (target > protocol.min_depth) & (target < protocol.max_depth)
    if protocol.crop is not None:
        mask &= torch.from_numpy(protocol.crop.mask(*target.shape)).to(target.device)
    return mask


def _subsampled(maps: list[Tensor], side: int | None) -> list[Tensor]:
    """The nearest pixels of a grid whose longest side is ``side``, of maps that are larger."""
    longest = max(maps[0].shape)
    if side is None or longest <= side:
        return maps
    # By torch, whose choice of the nearest is that of Marigold's code; float32 holds all that comes here.
    shrunk = [F.interpolate(each[None, None].float(), scale_factor=side / longest, mode="nearest") for each in maps]
    return [small[0, 0].to(each.dtype) for small, each in zip(shrunk, maps, strict=True)]


def _floor(protocol: Protocol, target: Tensor, mask: Tensor) -> float:
    """Least aligned disparity."""
    if protocol.floor == "max_depth":
        return 1 / protocol.max_depth
    if protocol.floor == "max_target":
        return float(1 / target[mask].max())
    return protocol.floor


def fit_depth(prediction: Maps[Tensor], target: Tensor, mask: Tensor, protocol: Protocol) -> Tensor:
    """Prediction (H, W) as depth in the truth's unit.

    Under ``disparity`` metres are inverted and fitted to 1/depth as disparity is. Depth and its logarithm up to scale
    and shift cannot be inverted before they are fitted, so they are fitted in the space they live in under
    ``disparity`` and ``native``. A convention (:data:`dav2.scores.protocols.CONVENTIONS`) insists on its own space:
    what is relative in another is first fitted by least squares where it lives, then taken there and fitted again.

    Args:
        prediction: depth of some kind (:attr:`dav2.maps.Quantity.is_depth`), finite.
        target: depth (H, W).
        mask: (H, W) bool, not empty.
        protocol: how to align.

    Raises:
        ValueError: relative depth under a protocol that measures metres, or no depth at all.
    """
    quantity, values = prediction.quantity, prediction.values
    if not quantity.is_depth:
        raise ValueError(f"protocol '{protocol.name}' judges depth; the model predicts {quantity}")
    metric, side = quantity is Quantity.METRES, protocol.fit_side
    if not metric and not protocol.takes_relative:
        raise ValueError(f"protocol '{protocol.name}' measures metres; the model predicts {quantity.unit}")
    if protocol.alignment == "none":
        depth = values
    elif protocol.alignment == "median":
        depth = values * alignment.median_scale(values, target, mask).to(values.dtype)
    elif protocol.alignment in _SPACES:
        depth = _fit_in(prediction, target, mask, protocol)
    elif quantity is Quantity.LOG_DEPTH:
        logarithm = torch.where(mask, target, 1).log()
        depth = alignment.apply(values, *_fit(values, logarithm, mask, side)).exp()
    elif quantity is Quantity.DEPTH or (metric and protocol.alignment == "native"):
        depth = alignment.apply(values, *_fit(values, target, mask, side))
    else:
        disparity = values.clamp_min(torch.finfo(torch.float32).tiny).reciprocal() if metric else values
        inverse = torch.where(mask, target, 1).reciprocal()
        fitted = alignment.apply(disparity, *_fit(disparity, inverse, _counting(disparity, mask, protocol), side))
        depth = fitted.clamp_min(_floor(protocol, target, mask)).reciprocal()
    # A fitted disparity of zero under an unlimited range is infinitely far: bounded by what float32 can square.
    return depth.clamp(max(protocol.min_depth, 1e-6), min(protocol.max_depth, 1e9))


class _Space(NamedTuple):
    """Where scale and shift are fitted: from depth there, and back, given the least disparity of the protocol."""

    there: Map
    back: Callable[[Tensor, float], Tensor]


_SPACES = {
    "ls-depth": _Space(lambda depth: depth, lambda fitted, least: fitted),
    "ls-disparity": _Space(torch.reciprocal, lambda fitted, least: fitted.clamp_min(least).reciprocal()),
    "ls-root-disparity": _Space(
        lambda depth: depth.rsqrt(), lambda fitted, least: fitted.clamp_min(least**0.5).square().reciprocal()
    ),
    "ransac-log": _Space(torch.log1p, lambda fitted, least: fitted.expm1()),
}
_OWN = {Quantity.DISPARITY: "ls-disparity", Quantity.DEPTH: "ls-depth"}


def _fit_in(prediction: Maps[Tensor], target: Tensor, mask: Tensor, protocol: Protocol) -> Tensor:
    """Depth fitted in the space that the protocol's convention names."""
    values, space = prediction.values, _SPACES[protocol.alignment]
    known = torch.where(mask, target, 1)
    if _OWN.get(prediction.quantity) == protocol.alignment:
        there = values
    else:
        if prediction.quantity is not Quantity.METRES:
            # "disparity" fits relative depth in the space it lives in, inverts, and clips to the range.
            values = fit_depth(prediction, target, mask, replace(protocol, alignment="disparity"))
        there = space.there(values.clamp_min(torch.finfo(torch.float32).tiny))
    fit = alignment.ransac if protocol.alignment == "ransac-log" else alignment.least_squares
    fitted = fit(*_subsampled([there, space.there(known), mask], protocol.fit_side))
    return space.back(alignment.apply(there, *fitted), _floor(protocol, target, mask))


def _counting(disparity: Tensor, mask: Tensor, protocol: Protocol) -> Tensor:
    """Pixels that scale and shift of disparity are fitted to: under ``native`` only where it is above 0, if anywhere.

    Marigold's code leaves out what it could not invert; a network that ends in ReLU has zeros in the sky.
    """
    positive = mask & (disparity > 0)
    return positive if protocol.alignment == "native" and bool(positive.any()) else mask


def _fit(prediction: Tensor, target: Tensor, mask: Tensor, side: int | None) -> tuple[Tensor, Tensor]:
    return alignment.least_squares(*_subsampled([prediction, target, mask], side))


def score_frame(prediction: Maps[Tensor], target: Tensor, protocol: Protocol, *, metric_truth: bool = True) -> Scored:
    """Metrics of one frame.

    Args:
        prediction: depth of some kind, (H, W).
        target: (H, W) depth; ``inf`` sky, ``nan`` unknown.
        protocol: the rules.
        metric_truth: whether the truth is in metres. Otherwise it is divided by its median over the mask, so that
            errors with a unit read as multiples of the median depth.

    Returns:
        All of :data:`dav2.scores.depth.NAMES`, and boundary scores where the protocol asks for them.
    """
    values = prediction.values.float()
    if values.shape != target.shape:
        return Scored({}, WRONG_SIZE)
    mask = valid_mask(target, protocol)
    if int(mask.sum()) < protocol.min_pixels:
        return Scored({}, NO_PIXELS)
    if not bool(torch.isfinite(values).all()):
        return Scored({}, NOT_FINITE)
    if not metric_truth:
        target = target / target[mask].median()
    depth = fit_depth(replace(prediction, values=values), target, mask, protocol)
    metrics = {name: float(value) for name, value in depth_metrics(depth, target, mask).items()}
    if protocol.boundary:
        from dav2.scores.boundary import boundary_scores

        metrics.update(boundary_scores(depth, target, mask, protocol.boundary))
    return Scored(metrics, None, depth)
