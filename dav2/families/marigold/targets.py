"""Depth maps as targets in [-1, 1], and which latent cells count.

Per map, the 2 % and 98 % quantiles of the valid values become -1 and 1, and what lies beyond is clipped (arXiv
2312.02145, section 3.2). Quantiles move with any scale and shift, so that maps in any affine-invariant space serve:
depth, its logarithm or disparity, each as the loader gives it or as labels hold it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

QUANTILES = (0.02, 0.98)
FEWEST = 2
"""Valid pixels below which a map says nothing of scale and shift."""


class Target(NamedTuple):
    """One map to learn.

    Attributes:
        values: float32 (H, W) in [-1, 1], finite everywhere.
        mask: bool (H, W), pixels that count; none where the map has too few valid pixels or is constant.
    """

    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


def normalised(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> Target:
    """Bring a map between its quantiles to [-1, 1].

    Args:
        values: float32 (H, W); what lies outside of ``mask`` may be anything.
        mask: bool (H, W), valid pixels.

    Returns:
        The target. A map that cannot be brought there (fewer than two valid pixels, or a constant) becomes 0 with an
        empty mask, so that it weighs nothing and no NaN travels.
    """
    mask = mask & np.isfinite(values)
    known = values[mask]
    if known.size < FEWEST:
        return _nothing(values.shape)
    low, high = np.quantile(known.astype(np.float64), QUANTILES)
    spread = high - low
    if not spread > np.finfo(np.float32).eps * max(abs(low), abs(high), np.finfo(np.float32).tiny):
        return _nothing(values.shape)
    clean = np.where(np.isfinite(values), values, low)
    scaled = ((clean - low) / spread * 2 - 1).clip(-1, 1).astype(np.float32)
    return Target(scaled, mask)


def _nothing(shape: tuple[int, ...]) -> Target:
    return Target(np.zeros(shape, np.float32), np.zeros(shape, np.bool_))


def latent_mask(mask: Tensor, factor: int) -> Tensor:
    """Which latent cells count: those all of whose pixels are valid. bool (…, H, W) → bool (…, H / f, W / f)."""
    flat = mask.flatten(0, -3)[:, None]
    cells = ~F.max_pool2d((~flat).float(), factor).bool()[:, 0]
    return cells.view(*mask.shape[:-2], *cells.shape[-2:])


def from_unit(values: Tensor) -> Tensor:
    """Decoded values, about [-1, 1] → [0, 1], clipped as the reference does."""
    return (values.clamp(-1, 1) + 1) / 2


def batch_targets(values: Tensor, mask: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """Targets of a batch of nearness maps (B, H, W), as the loader gives them.

    Args:
        sign: +1 where the quantity grows with nearness, -1 where it grows with distance.

    Returns:
        Values float32 (B, H, W) in [-1, 1] and bool (B, H, W), pixels that count.
    """
    pairs = zip((sign * values).numpy(), mask.numpy(), strict=True)
    found = [normalised(each, known) for each, known in pairs]
    return (
        torch.from_numpy(np.stack([target.values for target in found])),
        torch.from_numpy(np.stack([target.mask for target in found])),
    )
