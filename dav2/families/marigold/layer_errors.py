"""How far decoded layers are from their targets: the angle of normals, the absolute difference of everything else."""

from __future__ import annotations

from torch import Tensor

from dav2.families.marigold.modalities import Modality
from dav2.families.vectors import angles
from dav2.maps import Quantity

HOLD = 0.1
"""Weight of the difference of vectors, which holds the length that angles leave free."""


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
