"""From linear radiance to the picture: haze, tone mapping, and the styles of adverse and non-real pictures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Camera
from dav2.scenes.scene import Look
from dav2.scenes.textures import Random

Picture = NDArray[np.float32]
SKY_DISTANCE = 400.0


def develop(
    radiance: Picture, depth: NDArray[np.float32], camera: Camera, look: Look, rng: Random
) -> NDArray[np.uint8]:
    """(H, W, 3) linear radiance → uint8 sRGB. Haze follows Beer-Lambert along the ray: L e^{-βd} + A (1 - e^{-βd})."""
    distance = np.minimum(depth / camera.rays()[..., 2], SKY_DISTANCE)[..., None]
    picture = tone_map(radiance * np.asarray(look.tint, np.float32))
    linear = picture**2.2
    kept = np.exp(-np.asarray(look.density, np.float32) * distance)
    linear = (linear * kept + np.asarray(look.haze, np.float32) * (1 - kept)) * look.exposure
    picture = np.clip(linear, 0, 1).astype(np.float32) ** np.float32(1 / 2.2)
    for name in look.style:
        picture = np.clip(STYLES[name](picture, depth, rng), 0, 1).astype(np.float32)
    return np.rint(picture * 255).astype(np.uint8)


def tone_map(radiance: Picture) -> Picture:
    """Hypersim's tone map: the 90th percentile of luma becomes 0.8 after a gamma of 1/2.2; the rest clips."""
    luma = np.asarray(radiance @ np.array([0.3, 0.59, 0.11]), np.float32)
    bright = float(np.quantile(luma, 0.9))
    scale = 0.8**2.2 / bright if bright > 1e-4 else 0.0
    return np.asarray(np.clip(scale * radiance, 0, 1) ** (1 / 2.2), np.float32)


def _grain(picture: Picture, depth: Picture, rng: Random) -> Picture:
    return np.asarray(picture + rng.normal(0, 0.06, picture.shape), np.float32)


def _blur(picture: Picture, depth: Picture, rng: Random) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), picture.shape[1] / 200), np.float32)


def _rain(picture: Picture, depth: Picture, rng: Random) -> Picture:
    """Slanted streaks, blurred along their way."""
    height, width = picture.shape[:2]
    drops = (rng.random((height, width)) > 0.985).astype(np.float32)
    length = max(height // 12, 5)
    kernel = np.zeros((length, length), np.float32)
    lean = int(rng.integers(-length // 3, length // 3 + 1))
    cv2.line(kernel, (length // 2 - lean // 2, 0), (length // 2 + lean // 2, length - 1), 1.0)
    streaks = cv2.filter2D(drops, -1, kernel)
    return np.asarray(picture * 0.9 + 0.22 * np.clip(streaks, 0, 1)[..., None], np.float32)


def _snow(picture: Picture, depth: Picture, rng: Random) -> Picture:
    height, width = picture.shape[:2]
    flakes = np.zeros((height, width), np.float32)
    for size, share in ((0.7, 0.006), (1.2, 0.002), (2.2, 0.0006)):
        seeds = (rng.random((height, width)) < share).astype(np.float32)
        flakes += cv2.GaussianBlur(seeds, (0, 0), size) * size**2 * 6
    return picture + 0.85 * np.clip(flakes, 0, 1)[..., None]


def _posterise(picture: Picture, depth: Picture, rng: Random) -> Picture:
    levels = int(rng.integers(4, 8))
    return np.asarray(np.round(picture * levels) / levels, np.float32)


def _outline(picture: Picture, depth: Picture, rng: Random) -> Picture:
    """Dark lines where depth jumps or turns, as in a comic."""
    inverse = np.where(np.isfinite(depth), 1 / depth, 0).astype(np.float32)
    edge = np.abs(cv2.Laplacian(inverse, cv2.CV_32F)) / (inverse + 1e-3)
    return picture * np.where(edge > 0.15, 0.15, 1.0)[..., None]


def _sketch(picture: Picture, depth: Picture, rng: Random) -> Picture:
    """Pencil: brightness divided by its blurred self."""
    luma = picture.mean(axis=2)
    soft = cv2.GaussianBlur(luma, (0, 0), 3)
    lines = np.clip(luma / np.maximum(soft, 1e-3), 0, 1.05) ** 3
    paper = np.array([1.0, 0.98, 0.93], np.float32)
    return np.asarray((0.25 * luma + 0.75 * lines)[..., None] * paper, np.float32)


def _paint(picture: Picture, depth: Picture, rng: Random) -> Picture:
    """Flat patches as in oil: repeated edge-keeping smoothing."""
    for _ in range(3):
        picture = np.asarray(cv2.bilateralFilter(picture, 7, 0.2, 4), np.float32)
    return np.asarray((picture - 0.5) * 1.2 + 0.5, np.float32)


def _duotone(picture: Picture, depth: Picture, rng: Random) -> Picture:
    first, second = rng.random(3) * 0.35, 0.6 + rng.random(3) * 0.4
    luma = picture.mean(axis=2, keepdims=True)
    return np.asarray(first * (1 - luma) + second * luma, np.float32)


def _grey(picture: Picture, depth: Picture, rng: Random) -> Picture:
    return np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)


STYLES: dict[str, Callable[[Picture, Picture, Random], Picture]] = {
    "grain": _grain,
    "blur": _blur,
    "rain": _rain,
    "snow": _snow,
    "posterise": _posterise,
    "outline": _outline,
    "sketch": _sketch,
    "paint": _paint,
    "duotone": _duotone,
    "grey": _grey,
}
