"""Fields of vectors that stand for directions, as networks give and learn them."""

from __future__ import annotations

import torch
from torch import Tensor

SHORTEST = 1e-6
"""Length below which a vector says nothing, and faces the viewer."""
TINY = 1e-12
"""Under the root of a squared length, whose derivative at 0 would be infinite."""


def unit(vectors: Tensor) -> Tensor:
    """Vectors (…, 3, H, W) of length 1; what has no length faces the viewer, (0, 0, 1)."""
    length = vectors.norm(dim=-3, keepdim=True)
    # Made on the device: what is copied there from the host cannot be part of a CUDA graph.
    towards = (torch.arange(3, device=vectors.device) == 2).to(vectors.dtype)[:, None, None]
    return torch.where(length > SHORTEST, vectors / length.clamp_min(SHORTEST), towards)


def angles(found: Tensor, target: Tensor) -> Tensor:
    """Radians between two fields of vectors of any length, float32 (…, 3, H, W) → (…, H, W).

    The arc tangent of |p × t| over p · t: unlike the arc cosine's its derivative stays finite where both are parallel.
    """
    sine = (torch.linalg.cross(found, target, dim=-3).square().sum(dim=-3) + TINY).sqrt()
    return torch.atan2(sine, (found * target).sum(dim=-3))
