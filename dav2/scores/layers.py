"""Predicted layers of one frame against its own, by the rules of a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dav2.maps import Quantity
from dav2.scores import intrinsics
from dav2.scores.layer_protocols import LayerProtocol
from dav2.scores.normals import normal_metrics
from dav2.scores.scoring import NO_PIXELS, NOT_FINITE, WRONG_SIZE, Scored

NO_LAYER = "frame lacks a layer"


def split_channels(quantities: Sequence[Quantity], values: Tensor) -> dict[Quantity, Tensor]:
    """Layers (C, H, W) of a prediction (ΣC, H, W), or (H, W) where it is one channel.

    Raises:
        ValueError: another number of channels.
    """
    stacked = values[None] if values.ndim == 2 else values
    counts = [quantity.channels for quantity in quantities]
    if len(stacked) != sum(counts):
        raise ValueError(f"a prediction of {', '.join(quantities)} has {sum(counts)} channels, not {len(stacked)}")
    return dict(zip(quantities, stacked.split(counts), strict=True))


def score_layers(
    prediction: Mapping[Quantity, Tensor], truth: Mapping[Quantity, Tensor], protocol: LayerProtocol
) -> Scored:
    """Metrics of one frame.

    Args:
        prediction: layer → (C, H, W), linear unless the protocol says that some come gamma-coded.
        truth: layer → (C, H, W), ``nan`` where unknown.
        protocol: the rules; layers that it does not judge are passed over.

    Returns:
        Under normals :data:`dav2.scores.normals.NAMES`; else ``<layer>_psnr`` and ``<layer>_ssim`` of each layer, and
        ``recomposition_psnr`` where albedo, shading and residual are all judged: A · S + R against that of the truth.
    """
    judged = protocol.quantities
    if not set(judged) <= truth.keys():
        return Scored({}, NO_LAYER)
    values = {quantity: _linear(prediction[quantity].float(), quantity, protocol) for quantity in judged}
    if any(values[quantity].shape != truth[quantity].shape for quantity in judged):
        return Scored({}, WRONG_SIZE)
    if not all(bool(torch.isfinite(each).all()) for each in values.values()):
        return Scored({}, NOT_FINITE)
    masks = {quantity: _mask(quantity, truth[quantity]) for quantity in judged}
    if min(int(mask.sum()) for mask in masks.values()) < protocol.min_pixels:
        return Scored({}, NO_PIXELS)
    if judged == (Quantity.NORMALS,):
        return Scored(normal_metrics(values[judged[0]], truth[judged[0]], masks[judged[0]]), None)
    metrics: dict[str, float] = {}
    for quantity in judged:
        found = intrinsics.layer_metrics(quantity, values[quantity], truth[quantity], masks[quantity])
        metrics |= {f"{quantity}_{name}": value for name, value in found.items()}
    parts = (Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL)
    if set(parts) <= set(judged):
        albedo, shading, residual = (truth[each] for each in parts)
        everywhere = torch.stack([masks[each] for each in parts]).all(0)
        made = [values[each] for each in parts]
        image = albedo * shading + residual
        metrics["recomposition_psnr"] = intrinsics.recomposition(made[0], made[1], made[2], image, everywhere)
    return Scored(metrics, None)


def _linear(values: Tensor, quantity: Quantity, protocol: LayerProtocol) -> Tensor:
    return values.clamp(0, 1) ** intrinsics.GAMMA if quantity in protocol.gamma_coded else values


def _mask(quantity: Quantity, truth: Tensor) -> Tensor:
    """Known pixels; of albedo, black ones are unknown, as the published evaluation has it."""
    known = torch.isfinite(truth).all(0)
    return known & (truth > 0).any(0) if quantity is Quantity.ALBEDO else known
