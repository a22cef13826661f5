"""How far decoded layers are from their targets: the angle of normals, the absolute difference of everything else."""

from __future__ import annotations

import torch
from torch import Tensor

from dav2.families.marigold.modalities import Modality
from dav2.maps import Quantity

HOLD = 0.1
"""Weight of the difference of vectors, which holds the length that angles leave free."""
TINY = 1e-12
"""Under the root of a squared length, whose derivative at 0 would be infinite."""


def layer_errors(modality: Modality, found: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum of each sample's errors over the known pixels of its n images, float32 (B,).

    A pixel of an image counts once: the angle in radians plus a tenth of the mean difference of the three channels, or
    that difference alone.

    Args:
        found, target: float32 (B, 3 n, H, W), images in [-1, 1]; what lies outside of ``mask`` may be anything finite.
        mask: bool (B, n, H, W).
    """
    difference = (found - target).abs().unflatten(1, (-1, 3)).mean(dim=2)
    if modality.layers[0] is Quantity.NORMALS:
        difference = angles(found, target)[:, None] + HOLD * difference
    return difference.where(mask, 0.0).sum(dim=(1, 2, 3))


def angles(found: Tensor, target: Tensor) -> Tensor:
    """Radians between two fields of vectors of any length, float32 (B, 3, H, W) → (B, H, W).

    The arc tangent of |p × t| over p · t: unlike the arc cosine's its derivative stays finite where both are parallel.
    """
    sine = (torch.linalg.cross(found, target, dim=1).square().sum(dim=1) + TINY).sqrt()
    return torch.atan2(sine, (found * target).sum(dim=1))
