"""From a photograph to what the network sees, and back: the rules of diffusers' Marigold pipelines.

The longest side becomes the processing resolution, by bilinear interpolation with antialiasing; the right and the lower
edge are repeated up to a multiple of the codec's factor; maps lose that margin and are brought back by bilinear
interpolation.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

LARGEST_SIDE = 16384
AUTHORS_SIDE = 768
"""Longest side that the authors' models see."""


def check_side(side: int) -> None:
    """Refuse a processing resolution that is negative, or larger than any memory."""
    if not 0 <= side <= LARGEST_SIDE:
        raise ValueError(f"input size {side} must be 0 (the image's own) to {LARGEST_SIDE} pixels of the longest side")


def processed(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of an image of ``shape`` whose longest side becomes ``side``; 0 leaves it as it is.

    Raises:
        ValueError: nothing would be left of the shorter side.
    """
    check_side(side)
    if side == 0:
        return shape
    longest = max(shape)
    height, width = shape[0] * side // longest, shape[1] * side // longest
    if height == 0 or width == 0:
        raise ValueError(f"an image of {shape[1]} × {shape[0]} pixels is too long to be seen at {side} pixels")
    return height, width


def padded(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """The next multiples of ``factor``."""
    return -(-shape[0] // factor) * factor, -(-shape[1] // factor) * factor


def to_network(rgb: NDArray[np.uint8], side: int, factor: int) -> Tensor:
    """uint8 (H, W, 3) → float32 (1, 3, h, w) in [-1, 1]."""
    image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    shape = (rgb.shape[0], rgb.shape[1])
    inside = processed(shape, side)
    if side != 0:
        image = F.interpolate(image, inside, mode="bilinear", antialias=True)
    height, width = padded(inside, factor)
    return F.pad(image, (0, width - inside[1], 0, height - inside[0]), mode="replicate")


def enlarged(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A map (h, w), without its margin, at the resolution (H, W) of its image."""
    return F.interpolate(values[None, None].float(), shape, mode="bilinear")[0, 0]


def without_margin(values: Tensor, shape: tuple[int, int], side: int, factor: int) -> Tensor:
    """A map as the network gives it, without the margin that an image of ``shape`` was given.

    Args:
        values: (…, h, w).
        side: processing resolution; 0 is the image's own. Where the map is larger or smaller than that gives, its own
            longest side is what the image was brought to.
    """
    inside = processed(shape, side)
    if padded(inside, factor) != tuple(values.shape[-2:]):
        inside = processed(shape, max(values.shape[-2:]))
    return values[..., : inside[0], : inside[1]]
