"""The files that ``dav2 predict`` writes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dav2.data.blocks import row_blocks
from dav2.data.images import exif
from dav2.files import write_whole
from dav2.maps import Maps, Quantity
from dav2.pictures import Palette, beside
from dav2.predict.layer_writers import layer_files
from dav2.predict.marks import MARK
from dav2.predict.points import encode

FILM_DIAGONAL = 43.2666
"""Diagonal of 35 mm film in millimetres, to which the focal length in EXIF data refers."""
LENSES = (1.0, 10_000.0)
"""Focal lengths in millimetres of film that are believed."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One image with its depth or its layers.

    Attributes:
        rgb: uint8 (H, W, 3).
        maps: depth of some kind, values float32 (H, W), or layers.
        focal: focal length in pixels, where it is known.
        normals: unit vectors in camera axes, float32 (3, H, W), where another model predicted them.
    """

    rgb: NDArray[np.uint8]
    maps: Maps[NDArray[np.float32]]
    focal: float | None = None
    normals: NDArray[np.float32] | None = None

    @property
    def depth(self) -> NDArray[np.float32]:
        """Values of the map."""
        return self.maps.values


def png16(prediction: Prediction, palette: Palette) -> bytes:
    """16-bit PNG that uses all codes: value = ``offset`` + ``scale`` · code.

    Scale, offset and unit are in the file's text, as ``dav2:scale``, ``dav2:offset`` and ``dav2:unit``.
    """
    depth = prediction.depth
    low, high = float(depth.min()), float(depth.max())
    scale = (high - low) / 65535
    codes = np.zeros(depth.shape, np.uint16)
    if scale > 0:
        for rows in row_blocks(*depth.shape):
            codes[rows] = ((depth[rows].astype(np.float64) - low) / scale).round()
    text = {"dav2:scale": repr(scale), "dav2:offset": repr(low), "dav2:unit": prediction.maps.quantity.unit}
    return _png(codes, "png16", text)


def npy(prediction: Prediction, palette: Palette) -> bytes:
    """NumPy file of the float32 map."""
    return _npy(prediction.depth)


def colour(prediction: Prediction, palette: Palette) -> bytes:
    """Coloured PNG over the image's own range."""
    picture = palette(prediction.depth, float(prediction.depth.min()), float(prediction.depth.max()))
    return _png(picture, "color")


def side_by_side(prediction: Prediction, palette: Palette) -> bytes:
    """Photograph and coloured depth in one PNG."""
    picture = palette(prediction.depth, float(prediction.depth.min()), float(prediction.depth.max()))
    return _png(beside(prediction.rgb, picture), "side-by-side")


def ply(prediction: Prediction, palette: Palette) -> bytes:
    """Binary point cloud in metres with normals and colours; see :func:`dav2.predict.points.encode`.

    Raises:
        ValueError: the depth is relative, or the focal length is not known.
    """
    if prediction.maps.quantity is not Quantity.METRES:
        unit = prediction.maps.quantity.unit
        raise ValueError(f"a point cloud needs a metric model; {unit} has no shape in metres")
    if prediction.focal is None:
        raise ValueError("a point cloud needs the focal length: not in the file's EXIF data; give --focal in pixels")
    return encode(prediction.depth, prediction.rgb, prediction.focal, prediction.normals)


def uncertainty(prediction: Prediction, palette: Palette) -> bytes:
    """NumPy file of the float32 uncertainty, in the map's unit.

    Raises:
        ValueError: the model gives none, or merged no predictions.
    """
    if prediction.maps.uncertainty is None:
        raise ValueError(
            "there is no uncertainty of a single prediction; a diffusion model gives one with --ensemble 3"
        )
    return _npy(prediction.maps.uncertainty)


WRITERS: dict[str, tuple[str, Callable[[Prediction, Palette], bytes]]] = {
    "png16": ("_depth.png", png16),
    "npy": ("_depth.npy", npy),
    "color": ("_color.png", colour),
    "side-by-side": ("_side.png", side_by_side),
    "ply": (".ply", ply),
    "uncertainty": ("_uncertainty.npy", uncertainty),
}
"""Kind → suffix of its files and the function that encodes one."""


def write(
    prediction: Prediction, kinds: list[str], palette: Palette, stem: Path, inputs: frozenset[str] = frozenset()
) -> list[Path]:
    """Write every kind in ``kinds`` beside one another under ``stem`` + suffix; the paths written.

    Args:
        inputs: files that must not be written over, as real paths.

    Raises:
        ValueError: one of them would be.
    """
    if not prediction.maps.quantity.is_depth:
        return _write_layers(prediction, kinds, stem, inputs)
    paths = [stem.with_name(stem.name + WRITERS[kind][0]) for kind in kinds]
    _refuse_overwriting(paths, inputs)
    for kind, path in zip(kinds, paths, strict=True):
        write_whole(path, WRITERS[kind][1](prediction, palette))
    return paths


def _write_layers(prediction: Prediction, kinds: list[str], stem: Path, inputs: frozenset[str]) -> list[Path]:
    found = [layer_files(prediction.rgb, prediction.maps, kind) for kind in kinds]
    files = {stem.with_name(stem.name + ending): data for each in found for ending, data in each.items()}
    _refuse_overwriting(list(files), inputs)
    for path, data in files.items():
        write_whole(path, data)
    return list(files)


def _refuse_overwriting(paths: list[Path], inputs: frozenset[str]) -> None:
    lost = [path for path in paths if inputs and os.path.realpath(path) in inputs]
    if lost:
        raise ValueError(f"its output would overwrite the input {lost[0]}; choose another --out")


def exif_focal(data: bytes, shape: tuple[int, ...], name: str) -> tuple[float | None, str]:
    """Focal length in pixels from the EXIF data of an image file, and a remark where what is there makes no sense.

    By the standard's definition of the 35 mm equivalent: the image diagonal in pixels per film diagonal.

    Args:
        shape: (height, width, …) of the image.
    """
    try:
        value = exif(data, name).get_ifd(0x8769).get(0xA405)
    except Exception:
        return None, "the EXIF data are damaged and not used"
    if value is None or value == 0:
        # 0 is how the standard says that the focal length is not known.
        return None, ""
    try:
        millimetres = float(value)
    except (TypeError, ValueError, ArithmeticError):
        millimetres = math.nan
    if not LENSES[0] <= millimetres <= LENSES[1]:
        return None, f"a focal length of {value} mm in the EXIF data makes no sense and is not used"
    return millimetres * math.hypot(*shape[:2]) / FILM_DIAGONAL, ""


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _png(array: NDArray[np.generic], kind: str, texts: dict[str, str] | None = None) -> bytes:
    words = PngInfo()
    for name, text in {MARK: kind, **(texts or {})}.items():
        words.add_text(name, text)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", pnginfo=words, compress_level=3)
    return buffer.getvalue()
