"""The files that ``dav2 predict`` writes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dav2.files import write_whole
from dav2.pictures import Palette, beside

FILM_DIAGONAL = 43.2666
"""Diagonal of 35 mm film in millimetres, to which the focal length in EXIF data refers."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image with its depth.

    Attributes:
        rgb: uint8 (H, W, 3).
        depth: float32 (H, W), disparity or metres.
        metric: whether ``depth`` is metres.
        focal: focal length in pixels, where it is known.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    metric: bool
    focal: float | None = None


def png16(prediction: Prediction, palette: Palette) -> bytes:
    """16-bit PNG that uses all codes: value = ``offset`` + ``scale`` · code.

    Scale, offset and unit are in the file's text, as ``dav2:scale``, ``dav2:offset`` and ``dav2:unit``.
    """
    depth = prediction.depth
    low, high = float(depth.min()), float(depth.max())
    scale = (high - low) / 65535
    codes = ((depth.astype(np.float64) - low) / scale).round() if scale > 0 else np.zeros(depth.shape)
    text = PngInfo()
    text.add_text("dav2:scale", repr(scale))
    text.add_text("dav2:offset", repr(low))
    text.add_text("dav2:unit", "metre" if prediction.metric else "relative disparity")
    buffer = io.BytesIO()
    Image.fromarray(codes.astype(np.uint16)).save(buffer, "PNG", pnginfo=text, compress_level=3)
    return buffer.getvalue()


def read_png16(path: Path) -> NDArray[np.float32]:
    """Values of a file that :func:`png16` made: float32 (H, W)."""
    with Image.open(path, formats=("PNG",)) as image:
        image.load()
        text = getattr(image, "text", {})
        if "dav2:scale" not in text:
            raise ValueError(f"{path} carries no scale; it was not written by 'dav2 predict --save png16'")
        return (float(text["dav2:offset"]) + float(text["dav2:scale"]) * np.asarray(image)).astype(np.float32)


def npy(prediction: Prediction, palette: Palette) -> bytes:
    """NumPy file of the float32 map."""
    buffer = io.BytesIO()
    np.save(buffer, prediction.depth, allow_pickle=False)
    return buffer.getvalue()


def colour(prediction: Prediction, palette: Palette) -> bytes:
    """Coloured PNG over the image's own range."""
    return _png(palette(prediction.depth, float(prediction.depth.min()), float(prediction.depth.max())))


def side_by_side(prediction: Prediction, palette: Palette) -> bytes:
    """Photograph and coloured depth in one PNG."""
    picture = palette(prediction.depth, float(prediction.depth.min()), float(prediction.depth.max()))
    return _png(beside(prediction.rgb, picture))


def ply(prediction: Prediction, palette: Palette) -> bytes:
    """Binary point cloud in metres with colours; x right, y down, z forward, the camera at the origin.

    Raises:
        ValueError: the depth is relative, or the focal length is not known.
    """
    if not prediction.metric:
        raise ValueError("a point cloud needs a metric model; relative disparity has no shape in metres")
    if prediction.focal is None:
        raise ValueError("a point cloud needs the focal length: not in the file's EXIF data; give --focal in pixels")
    z = prediction.depth
    height, width = z.shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * z / prediction.focal
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5 - height / 2) * z / prediction.focal
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    points = np.empty(z.size, fields)
    for name, values in zip("xyz", (x, y, z), strict=True):
        points[name] = values.ravel()
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = prediction.rgb[..., channel].ravel()
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {z.size}"]
    lines += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    return ("\n".join([*lines, "end_header"]) + "\n").encode() + points.tobytes()


WRITERS: dict[str, tuple[str, Callable[[Prediction, Palette], bytes]]] = {
    "png16": ("_depth.png", png16),
    "npy": ("_depth.npy", npy),
    "color": ("_color.png", colour),
    "side-by-side": ("_side.png", side_by_side),
    "ply": (".ply", ply),
}
"""Kind → suffix of its files and the function that encodes one."""


def write(prediction: Prediction, kinds: list[str], palette: Palette, stem: Path) -> list[Path]:
    """Write every kind in ``kinds`` beside one another under ``stem`` + suffix; the paths written."""
    paths = []
    for kind in kinds:
        suffix, encode = WRITERS[kind]
        path = stem.with_name(stem.name + suffix)
        write_whole(path, encode(prediction, palette))
        paths.append(path)
    return paths


def exif_focal(data: bytes) -> float | None:
    """Focal length in pixels from the EXIF data of an image file, or ``None``.

    By the standard's definition of the 35 mm equivalent: the image diagonal in pixels per film diagonal.
    """
    with Image.open(io.BytesIO(data)) as image:
        millimetres = image.getexif().get_ifd(0x8769).get(0xA405)
        diagonal = math.hypot(*image.size)
    return float(millimetres) * diagonal / FILM_DIAGONAL if millimetres else None


def _png(rgb: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
