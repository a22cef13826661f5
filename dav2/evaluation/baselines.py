"""What costs nothing and must be beaten: predictions that never look at what is in the picture.

Each gives relative disparity, larger is nearer, and stands in the same tables as the models.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PREFIX = "baseline-"


def constant(images: Tensor) -> Tensor:
    """The same disparity everywhere: every comparison is a tie, and ties are wrong."""
    return torch.ones_like(images[:, 0])


def row(images: Tensor) -> Tensor:
    """Lower in the image is nearer, linearly from 0 at the top to 1 at the bottom."""
    count, _, height, width = images.shape
    return torch.linspace(0, 1, height, device=images.device)[None, :, None].expand(count, height, width)


def brightness(images: Tensor) -> Tensor:
    """Brighter is nearer: luma by ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return torch.einsum("bchw,c->bhw", images, weights)


BASELINES: dict[str, Callable[[Tensor], Tensor]] = {
    f"{PREFIX}constant": constant,
    f"{PREFIX}row": row,
    f"{PREFIX}brightness": brightness,
}
"""Name → function of RGB images (B, 3, H, W) in [0, 1] that gives disparity (B, H, W)."""
