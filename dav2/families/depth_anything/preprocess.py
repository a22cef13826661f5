"""Images to network input, by the rule of the published inference code."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.families.depth_anything.sizes import PATCH

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet statistics of RGB values in [0, 1]."""
LARGE = 25_000_000
"""Pixels from which an image is resized channel by channel."""
MAX_ASPECT = 16
"""Longest side of an image relative to its shortest; beyond it the network's input would fill any memory."""


def network_shape(height: int, width: int, input_size: int, patch: int = PATCH) -> tuple[int, int]:
    """Height and width the network sees: short side at least ``input_size``, aspect kept, multiples of ``patch``.

    With s = max(input_size/height, input_size/width), each side becomes the multiple of ``patch`` nearest to
    s · side (halves to the even multiple), or the next larger one where that falls below ``input_size``.

    Raises:
        ValueError: the image's sides differ by more than a factor of ``MAX_ASPECT``.
    """
    scale = max(input_size / height, input_size / width)

    def side(length: int) -> int:
        exact = scale * length / patch
        nearest = round(exact) * patch
        return nearest if nearest >= input_size else math.ceil(exact) * patch

    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(
            f"an image of {width} × {height} pixels is too narrow: with a short side of {input_size} pixels the long "
            f"one would have {round(scale * max(height, width))}; crop it to at most 1 : {MAX_ASPECT}"
        )
    return side(height), side(width)


def preprocess(rgb: NDArray[np.uint8], input_size: int, patch: int = PATCH) -> NDArray[np.float32]:
    """Resize (cubic, in float) and normalise one image.

    Args:
        rgb: uint8 (H, W, 3).
        input_size: least short side of the result in pixels.
        patch: sides of the result are multiples of it.

    Returns:
        float32 (3, h, w), contiguous, ImageNet-normalised, (h, w) from :func:`network_shape`.
    """
    check_image(rgb)
    height, width = network_shape(rgb.shape[0], rgb.shape[1], input_size, patch)
    planes = np.empty((3, height, width), np.float32)
    # As float32 a large photograph takes gigabytes. Channel by channel it takes a third, but differs in the last digit.
    apart = rgb.shape[0] * rgb.shape[1] > LARGE
    image = rgb if apart else _resized(rgb, height, width)
    for channel in range(3):
        values = _resized(image[..., channel], height, width) if apart else image[..., channel]
        scale = 1.0 / (255.0 * STD[channel])
        np.multiply(values, np.float32(scale), out=planes[channel])
        planes[channel] -= np.float32(MEAN[channel] / STD[channel])
    return planes


def _resized(image: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    values = image.astype(np.float32)
    if (height, width) == image.shape[:2]:
        return values
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)


def check_image(rgb: NDArray[np.uint8]) -> None:
    """Refuse anything but a uint8 (H, W, 3) array with at least one pixel."""
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise ValueError(f"an image must be a uint8 array of shape (height, width, 3), not {got}")
    if 0 in rgb.shape:
        raise ValueError(f"an image must have at least one pixel, not shape {rgb.shape}")
