"""The files that ``dav2 predict`` writes of normals, appearance and light: those of depth, one set for every layer."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.maps import Maps, Quantity
from dav2.pictures import beside
from dav2.predict.marks import MARK

GAMMA = 2.2
Layer = Maps[NDArray[np.float32]]


def layer_picture(maps: Layer) -> NDArray[np.uint8]:
    """A layer as people look at it, uint8 (H, W, 3).

    Normals are (n + 1) / 2, so that what faces the viewer is light blue; albedo, shading and residual are gamma-coded
    (x^(1/2.2)); roughness and metallicity are grey, linear.
    """
    values = channels_last(maps)
    if maps.quantity is Quantity.NORMALS:
        shown = (values + 1) / 2
    elif values.ndim == 2:
        shown = np.repeat(values[..., None], 3, axis=2)
    else:
        shown = values.clip(0, 1) ** (1 / GAMMA)
    return (shown.clip(0, 1) * 255).round().astype(np.uint8)


def channels_last(maps: Layer) -> NDArray[np.float32]:
    """Values as files hold them: float32 (H, W, 3), or (H, W)."""
    return np.ascontiguousarray(np.moveaxis(maps.values, 0, -1)) if maps.values.ndim == 3 else maps.values


def layer_files(rgb: NDArray[np.uint8], maps: Layer, kind: str) -> dict[str, bytes]:
    """Files of one kind, of every layer that was predicted together: ending → content.

    Args:
        rgb: the photograph, uint8 (H, W, 3).
        kind: a name in :data:`dav2.predict.writers.WRITERS`.

    Raises:
        ValueError: layers have no files of that kind, or there is no uncertainty.
    """
    if kind == "side-by-side":
        picture = rgb
        for each in maps.every:
            picture = beside(picture, layer_picture(each))
        return {"_side.png": _png(picture, kind)}
    if kind not in _WRITERS:
        raise ValueError(f"'{kind}' is made of depth; {maps.quantity.unit} has {', '.join(_WRITERS)} and side-by-side")
    ending, function = _WRITERS[kind]
    return {f"_{each.quantity.value}{ending}": function(each) for each in maps.every}


def _png16(maps: Layer) -> bytes:
    """All 65,536 codes over the range that the layer may have, [-1, 1] or [0, 1]: value = offset + scale · code."""
    low, high = (-1.0, 1.0) if maps.quantity is Quantity.NORMALS else (0.0, 1.0)
    scale = (high - low) / 65535
    codes = ((channels_last(maps).clip(low, high).astype(np.float64) - low) / scale).round().astype(np.uint16)
    texts = {"dav2:scale": repr(scale), "dav2:offset": repr(low), "dav2:unit": maps.quantity.unit}
    return _png(codes, "png16", texts | ({"dav2:colours": maps.colour_space} if maps.colour_space else {}))


def _npy(maps: Layer) -> bytes:
    return _array(channels_last(maps))


def _colour(maps: Layer) -> bytes:
    return _png(layer_picture(maps), "color")


def _uncertainty(maps: Layer) -> bytes:
    if maps.uncertainty is None:
        raise ValueError(
            "there is no uncertainty of a single prediction; a diffusion model gives one with --ensemble 3"
        )
    return _array(maps.uncertainty)


_WRITERS: dict[str, tuple[str, Callable[[Layer], bytes]]] = {
    "png16": (".png", _png16),
    "npy": (".npy", _npy),
    "color": ("_color.png", _colour),
    "uncertainty": ("_uncertainty.npy", _uncertainty),
}


def _array(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _png(array: NDArray[np.uint8] | NDArray[np.uint16], kind: str, texts: dict[str, str] | None = None) -> bytes:
    """A PNG of 8 or 16 bits with texts, which OpenCV, unlike Pillow able to write three channels of 16, leaves out."""
    stored = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if array.ndim == 3 else array
    done, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise OSError("the picture could not be encoded as PNG")
    head = 8 + 25  # the signature, and the chunk IHDR that must come first
    content = data.tobytes()
    words = b"".join(_text(name, text) for name, text in {MARK: kind, **(texts or {})}.items())
    return content[:head] + words + content[head:]


def _text(name: str, text: str) -> bytes:
    body = b"tEXt" + name.encode("latin-1") + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
