"""Resizing, cropping and augmenting an image together with its target.

Every function is pure: random numbers come in as a generator. Images are uint8 (H, W, 3); the numbers of the
photometric augmentation are those of Depth Anything V1's strong perturbation, taken over from UniMatch (colour jitter
0.5/0.5/0.5/0.25, Gaussian blur of sigma 0.1–2, one CutMix rectangle).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = NDArray[np.uint8]

BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25
"""Share of the colour circle."""
BLUR_SIGMA = (0.1, 2.0)
CUTMIX_AREA = (0.02, 0.4)
CUTMIX_ASPECT = (0.3, 1 / 0.3)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Geometry(NamedTuple):
    """Resize to (height, width), then cut the crop at (top, left), then mirror."""

    height: int
    width: int
    top: int
    left: int
    crop_height: int
    crop_width: int
    flip: bool


class Box(NamedTuple):
    """A rectangle in pixels; the far sides are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


def draw_geometry(
    rng: np.random.Generator, size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float], flip: float
) -> Geometry:
    """Random resize, crop and mirroring of an image of ``size`` (H, W).

    Both sides become at least ``crop`` times a factor drawn from ``scale``, aspect kept (the published "lower bound"
    resize); the crop lies anywhere; ``flip`` is the probability of mirroring. Four numbers are drawn, always.
    """
    zoom, down, right, mirror = rng.random(4)
    factor = (scale[0] + zoom * (scale[1] - scale[0])) * max(crop[0] / size[0], crop[1] / size[1])
    height, width = max(crop[0], round(size[0] * factor)), max(crop[1], round(size[1] * factor))
    top, left = int(down * (height - crop[0] + 1)), int(right * (width - crop[1] + 1))
    return Geometry(height, width, top, left, *crop, bool(mirror < flip))


def resize_image(rgb: Rgb, height: int, width: int) -> Rgb:
    """Area average when shrinking, cubic when enlarging."""
    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = height < rgb.shape[0] and width < rgb.shape[1]
    resized = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized.astype(np.uint8, copy=False)


def place_image(rgb: Rgb, geometry: Geometry) -> Rgb:
    """Resized, cropped, mirrored image (crop_height, crop_width, 3)."""
    return _cut(resize_image(rgb, geometry.height, geometry.width), geometry)


def place_nearest(codes: NDArray[np.uint16], geometry: Geometry) -> NDArray[np.uint16]:
    """The same for depth codes, by nearest neighbour: no value is made up, sky and unknown mix with nothing.

    The pixel whose area holds the centre of the new pixel is taken, so depth stays aligned with the resized image; only
    the pixels of the crop are looked up.
    """
    rows = _nearest(geometry.top, geometry.crop_height, geometry.height, codes.shape[0])
    columns = _nearest(geometry.left, geometry.crop_width, geometry.width, codes.shape[1])
    return codes[rows[:, None], columns[::-1] if geometry.flip else columns]


def place_linear(values: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """The same for dense values such as pseudo-labels, which have no gaps: bilinear, or area average when shrinking."""
    shrinks = geometry.height < values.shape[0] and geometry.width < values.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(values, (geometry.width, geometry.height), interpolation=method)
    return _cut(resized.astype(np.float32, copy=False), geometry)


def jitter(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Strong change of brightness, contrast, saturation and hue, each drawn evenly from its range."""
    brightness = 1 + BRIGHTNESS * rng.uniform(-1, 1)
    contrast = 1 + CONTRAST * rng.uniform(-1, 1)
    saturation = 1 + SATURATION * rng.uniform(-1, 1)
    hue = HUE * rng.uniform(-1, 1)
    middle = float(rgb.reshape(-1, 3).mean(axis=0) @ _GREY) * brightness
    levels = (np.arange(256) * brightness - middle) * contrast + middle
    changed = cv2.LUT(rgb, np.clip(levels, 0, 255).astype(np.uint8))
    hsv = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV)
    tables = np.empty((1, 256, 3), np.uint8)
    steps = np.arange(256)
    tables[0, :, 0] = (steps + round(hue * 180)) % 180
    tables[0, :, 1] = np.clip(steps * saturation, 0, 255)
    tables[0, :, 2] = steps
    return cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)


def blur(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    """Gaussian blur of a sigma drawn from :data:`BLUR_SIGMA` pixels."""
    return cv2.GaussianBlur(rgb, (0, 0), rng.uniform(*BLUR_SIGMA)).astype(np.uint8, copy=False)


def cutmix_box(rng: np.random.Generator, height: int, width: int) -> Box:
    """Rectangle of 2–40 % of the area, of aspect 0.3–3.3, somewhere inside the image."""
    area = rng.uniform(*CUTMIX_AREA) * height * width
    aspect = math.exp(rng.uniform(math.log(CUTMIX_ASPECT[0]), math.log(CUTMIX_ASPECT[1])))
    tall = min(height, max(1, round(math.sqrt(area * aspect))))
    wide = min(width, max(1, round(math.sqrt(area / aspect))))
    top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
    return Box(top, left, top + tall, left + wide)


def _cut(array: NDArray, geometry: Geometry) -> NDArray:
    rows = slice(geometry.top, geometry.top + geometry.crop_height)
    piece = array[rows, geometry.left : geometry.left + geometry.crop_width]
    return piece[:, ::-1] if geometry.flip else piece


def _nearest(first: int, count: int, new: int, old: int) -> NDArray[np.intp]:
    """Source index of each of ``count`` new pixels from ``first``: the one that holds its centre."""
    return ((2 * np.arange(first, first + count) + 1) * old // (2 * new)).astype(np.intp)
