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

from dav2.data.frame import known_pixels

Rgb = NDArray[np.uint8]

BRIGHTNESS = CONTRAST = SATURATION = 0.5
HUE = 0.25
"""Share of the colour circle."""
BLUR_SIGMA = (0.1, 2.0)
CUTMIX_AREA = (0.02, 0.4)
CUTMIX_ASPECT = (0.3, 1 / 0.3)
HALF_KNOWN = 0.5
"""Least share of a new pixel's neighbourhood that must be known."""
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


def place_known(values: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """The same for (H, W) or (H, W, C) with gaps (``nan``): the weighted mean of what is known around each new pixel.

    A pixel of which less than half is known becomes unknown. Mirroring moves values and does not change them: normals
    need :func:`dav2.data.feed.layers.place_layer`.
    """
    known = known_pixels(values)
    weight = place_linear(known.astype(np.float32), geometry)
    weight[weight < HALF_KNOWN] = np.nan
    if values.ndim == 2:
        return place_linear(np.where(known, values, np.float32(0)), geometry) / weight
    return place_linear(np.where(known[..., None], values, np.float32(0)), geometry) / weight[..., None]


class Colour(NamedTuple):
    """What is done to the colours of one picture; nothing where brightness is 1 and so on, and ``sigma`` 0.

    Attributes:
        jittered: whether the four factors that follow are to be applied.
        brightness, contrast, saturation: factors.
        hue: turn of the colour circle, in circles.
        sigma: of the blur in pixels; 0 leaves the picture sharp.
    """

    jittered: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    sigma: float = 0.0


def draw_colour(rng: np.random.Generator, jitter: float, blur: float) -> Colour:
    """Strong change of brightness, contrast, saturation and hue with probability ``jitter``, each drawn evenly from its
    range; blur of a sigma drawn from :data:`BLUR_SIGMA` with probability ``blur``."""
    first, second = rng.random(2)
    colour = Colour()
    if first < jitter:
        brightness = 1 + BRIGHTNESS * rng.uniform(-1, 1)
        contrast = 1 + CONTRAST * rng.uniform(-1, 1)
        saturation = 1 + SATURATION * rng.uniform(-1, 1)
        colour = Colour(True, brightness, contrast, saturation, HUE * rng.uniform(-1, 1))
    return colour._replace(sigma=rng.uniform(*BLUR_SIGMA)) if second < blur else colour


def recolour(rgb: Rgb, colour: Colour) -> Rgb:
    """The picture with its colours changed, then blurred."""
    if colour.jittered:
        rgb = _jitter(np.ascontiguousarray(rgb), colour)
    if colour.sigma:
        blurred = cv2.GaussianBlur(np.ascontiguousarray(rgb), (0, 0), colour.sigma)
        rgb = blurred.astype(np.uint8, copy=False)
    return rgb


def _jitter(rgb: Rgb, colour: Colour) -> Rgb:
    # Sums of bytes are exact, so this is the mean that numpy gives, in a hundredth of its time.
    mean = np.array(cv2.sumElems(rgb)[:3]) / (rgb.shape[0] * rgb.shape[1])
    levels, hues, saturations = colour_tables(mean, colour)
    hsv = cv2.cvtColor(cv2.LUT(rgb, levels), cv2.COLOR_RGB2HSV)
    tables = np.empty((1, 256, 3), np.uint8)
    tables[0, :, 0], tables[0, :, 1], tables[0, :, 2] = hues, saturations, np.arange(256)
    return cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)


def colour_tables(mean: NDArray[np.float64], colour: Colour) -> tuple[Rgb, Rgb, Rgb]:
    """What becomes of each value of a channel, of each hue (in steps of 2°) and of each saturation: uint8 (256,) each.

    Args:
        mean: of each channel of the picture, (3,).
    """
    middle = float(mean @ _GREY) * colour.brightness
    steps = np.arange(256)
    levels = (steps * colour.brightness - middle) * colour.contrast + middle
    hues = (steps + round(colour.hue * 180)) % 180
    saturations = np.clip(steps * colour.saturation, 0, 255)
    return np.clip(levels, 0, 255).astype(np.uint8), hues.astype(np.uint8), saturations.astype(np.uint8)


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
