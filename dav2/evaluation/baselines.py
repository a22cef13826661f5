"""What costs nothing and must be beaten: predictions that never look at what is in the picture.

Each gives relative disparity, larger is nearer, or layers, and stands in the same tables as the models.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dav2.maps import Quantity
from dav2.scores.intrinsics import GAMMA

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


def facing(images: Tensor) -> Tensor:
    """Every surface faces the viewer: normals (0, 0, 1)."""
    return images.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(len(images), 3, *images.shape[2:])


def picture(images: Tensor) -> Tensor:
    """The picture itself, linear, is the albedo, under the same light everywhere and without residual; materials are
    neither rough nor smooth and no metal. Channels: albedo 3, shading 3, residual 3, roughness, metallicity.
    """
    ones = torch.ones_like(images)
    return torch.cat([images**GAMMA, ones, 0 * ones, 0.5 * ones[:, :1], 0 * ones[:, :1]], dim=1)


def grey(images: Tensor) -> Tensor:
    """The picture itself, linear, is the light, on one grey everywhere: :func:`picture` the other way round."""
    ones = torch.ones_like(images)
    return torch.cat([0.5 * ones, images**GAMMA, 0 * ones, 0.5 * ones[:, :1], 0 * ones[:, :1]], dim=1)


_APPEARANCE_AND_LIGHT = (
    Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL, Quantity.ROUGHNESS, Quantity.METALLICITY,
)  # fmt: skip
LAYER_BASELINES: dict[str, tuple[tuple[Quantity, ...], Callable[[Tensor], Tensor]]] = {
    f"{PREFIX}facing": ((Quantity.NORMALS,), facing),
    f"{PREFIX}picture": (_APPEARANCE_AND_LIGHT, picture),
    f"{PREFIX}grey": (_APPEARANCE_AND_LIGHT, grey),
}
"""Name → layers and function of RGB images (B, 3, H, W) in [0, 1] that gives their channels (B, C, H, W)."""
