"""The same DA-2K pairs on worse pictures: darkness, fog, snow, blur, noise, JPEG.

Every variant keeps the size of the image, so the points stay where they are, and is a pure function of image, kind and
seed. Fog thickens with distance (Koschmieder's law, I·e^(−βz) + A·(1 − e^(−βz))), so it needs depth: the frame's own
where it has one, else that of a reference model, the same for every model under test.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame

Image = NDArray[np.uint8]
ReferenceDepth = dict[str, NDArray[np.float32]]
"""Key → relative distance in [0, 1], small, to be resized to the image."""
REFERENCE = "teacher"
REFERENCE_SIDE = 256


def dark(rgb: Image, rng: np.random.Generator) -> Image:
    """A fifth of the light in linear intensity, with the shot and read noise of a short exposure."""
    linear = (rgb.astype(np.float32) / 255) ** 2.2 * 0.2
    noisy = linear + rng.normal(0, 1, rgb.shape).astype(np.float32) * np.sqrt(linear * 2e-3 + 1e-5)
    return _bytes(np.clip(noisy, 0, 1) ** (1 / 2.2))


def fog(rgb: Image, distance: NDArray[np.float32], thickness: float = 2.5, air: float = 0.85) -> Image:
    """Fog that leaves e^−``thickness`` of the light of the farthest point; ``distance`` (H, W) in [0, 1]."""
    through = np.exp(-thickness * distance)[..., None]
    return _bytes(rgb.astype(np.float32) / 255 * through + air * (1 - through))


def snow(rgb: Image, rng: np.random.Generator, density: float = 0.004) -> Image:
    """Bright flakes of three sizes, smeared along the wind, over a slightly washed-out picture."""
    height, width = rgb.shape[:2]
    layer = np.zeros((height, width), np.float32)
    unit = max(1.0, min(height, width) / 300)
    for size in (1.0, 2.0, 3.5):
        count = int(density * height * width / (unit * size) ** 2)
        flakes = np.zeros((height, width), np.float32)
        flakes[rng.integers(0, height, count), rng.integers(0, width, count)] = rng.uniform(0.5, 1, count)
        radius = unit * size / 2
        flakes = cv2.GaussianBlur(flakes, (0, 0), radius) * 2 * np.pi * radius**2
        layer = np.maximum(layer, _smeared(flakes, max(1, round(2 * unit * size))))
    cover = np.clip(layer, 0, 1)[..., None] * 0.9
    washed = rgb.astype(np.float32) / 255 * 0.85 + 0.12
    return _bytes(washed * (1 - cover) + cover)


def blur(rgb: Image) -> Image:
    """Gaussian blur with a deviation of 1 % of the short side."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.01 * min(rgb.shape[:2])), dtype=np.uint8)


def noise(rgb: Image, rng: np.random.Generator) -> Image:
    """Gaussian noise with a deviation of 0.1 of the range."""
    return _bytes(rgb.astype(np.float32) / 255 + rng.normal(0, 0.1, rgb.shape).astype(np.float32))


def jpeg(rgb: Image, quality: int = 10) -> Image:
    """JPEG at quality 10."""
    _, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1]).astype(np.uint8)


SEEDED: dict[str, Callable[[Image, np.random.Generator], Image]] = {"dark": dark, "snow": snow, "noise": noise}
PLAIN: dict[str, Callable[[Image], Image]] = {"blur": blur, "jpeg": jpeg}
KINDS = ("dark", "fog", "snow", "blur", "noise", "jpeg")


def transform(kind: str, seed: int, depths: ReferenceDepth | None = None) -> Callable[[Frame], Image]:
    """Function from a frame to its worse image.

    Args:
        kind: one of :data:`KINDS`.
        seed: with the frame's key it seeds the noise, so a frame always gets the same.
        depths: relative distances for frames without depth; needed by ``fog``.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"no image variant '{kind}'; there are: {', '.join(KINDS)}")

    def worse(frame: Frame) -> Image:
        if kind in PLAIN:
            return PLAIN[kind](frame.rgb)
        if kind in SEEDED:
            return SEEDED[kind](frame.rgb, np.random.default_rng([seed, zlib.crc32(frame.key.encode())]))
        return fog(frame.rgb, _distance_of(frame, depths or {}))

    return worse


def relative_distance(disparity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Affine-invariant disparity → distance in [0, 1].

    Disparity is scaled to [0, 1]; distance is 1/(disparity + 0.1), scaled likewise, so the farthest point is ten times
    as far as the nearest: a guess, but the same for all models.
    """
    low, high = float(disparity.min()), float(disparity.max())
    scaled = (disparity - low) / max(high - low, 1e-12)
    return ((1 / (scaled + 0.1) - 1 / 1.1) / (10 - 1 / 1.1)).astype(np.float32)


def reference_depths(directory: Path, rows: list[dict[str, object]], root: Path) -> ReferenceDepth:
    """Relative distance of every frame without depth, by the reference model, at most 256 pixels long.

    Raises:
        ValueError: there is no reference model in ``artifacts/models``.
    """
    from dav2.evaluation.predictors import open_predictor
    from dav2.evaluation.stream import predict_rows

    rows = [row for row in rows if row["size_depth"] == 0]
    if not rows:
        return {}
    result: ReferenceDepth = {}
    for read, prediction in predict_rows(directory, rows, open_predictor(REFERENCE, root)):
        if prediction is not None:
            distance = relative_distance(prediction.cpu().numpy())
            scale = min(1.0, REFERENCE_SIDE / max(distance.shape))
            size = (max(1, round(distance.shape[1] * scale)), max(1, round(distance.shape[0] * scale)))
            result[read.key] = np.asarray(cv2.resize(distance, size, interpolation=cv2.INTER_AREA), np.float32)
    return result


def _distance_of(frame: Frame, depths: ReferenceDepth) -> NDArray[np.float32]:
    height, width = frame.rgb.shape[:2]
    if frame.depth is not None:
        known = np.isfinite(frame.depth)
        farthest = float(frame.depth[known].max()) if known.any() else 1.0
        return np.where(known, frame.depth / farthest, 1).astype(np.float32)
    if frame.key not in depths:
        raise ValueError(f"{frame.key}: fog needs depth, and there is neither ground truth nor a reference prediction")
    resized = cv2.resize(depths[frame.key], (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0, 1).astype(np.float32)


def _smeared(layer: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Average along a steep diagonal of ``length`` pixels."""
    if length < 2:
        return layer
    kernel = np.zeros((length, length), np.float32)
    rows = np.arange(length)
    kernel[rows, rows // 2] = 1 / length
    return np.asarray(cv2.filter2D(layer, -1, kernel), np.float32)


def _bytes(image: NDArray[np.floating]) -> Image:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
