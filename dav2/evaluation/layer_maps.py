"""Normals and layers of appearance and light that any program made: how files hold them, and what is wrong with them.

=========  ========================================================================================================
PNG        codes of 8 or 16 bits over the whole range of the layer: −1 to 1 for normals, 0 to 1 for the others
NPY        the values themselves, (H, W, 3) or (3, H, W), or (H, W) for layers of one channel
EXR        the values themselves, channels R, G, B; for layers of one channel the only one, or Y
others     layers of one channel alone: NPZ, TIFF, PFM, HDF5
=========  ========================================================================================================

Normals are in camera axes, x right, y up, z to the viewer, and are made unit vectors; one of length 0 stays so and
stands at 90° to everything. The other layers are linear unless said otherwise.
"""

from __future__ import annotations

import struct

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dav2.data.frame import FrameError
from dav2.data.images import MAX_PIXELS
from dav2.data.raw.sources.formats import bounded, read_exr, read_exr_colours, read_npy, read_png
from dav2.data.raw.sources.maps import read_map
from dav2.maps import LAYERS, Quantity
from dav2.scores.intrinsics import GAMMA, LIGHT

ENDINGS = ("_normal", "_pred", *(f"_{layer.value}" for layer in LAYERS))
"""What programs, ours among them, put behind the image's name."""
SLACK = 1e-3
"""By how much a value may leave its range, as half floats and resizing make it."""
SHORT, LONG = 0.5, 1.5
"""Median lengths of vectors between which they are taken for normals."""
AWAY = 0.99
"""Share of vectors facing away at which the axes must be others."""


def endings_of(quantity: Quantity) -> tuple[str, ...]:
    """Endings of file names that may hold this layer; files of another layer beside them are the map of no image."""
    others = {f"_{layer.value}" for layer in LAYERS if layer is not quantity}
    own = tuple(each for each in ENDINGS if each not in others)
    return own if quantity is Quantity.NORMALS else tuple(each for each in own if each != "_normal")


def read_layer(
    data: bytes, name: str, quantity: Quantity, *, dataset: str | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.float32]:
    """The values that a file holds, float32 (C, H, W).

    Args:
        data, name: of the file.
        quantity: a layer.
        dataset: of an NPZ or HDF5 file with several arrays: which one is a layer of one channel.
        max_pixels: larger maps are refused before they are decoded.

    Raises:
        FrameError: damaged, too large, or of another shape than the layer has.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        codes = _png(data, name, max_pixels)
        low = -1.0 if quantity is Quantity.NORMALS else 0.0
        full = 65535 if codes.dtype == np.uint16 else 255
        array: NDArray[np.generic] = codes.astype(np.float32) / full * (1 - low) + low
        if quantity is Quantity.NORMALS and codes.ndim == 3:
            # A black pixel is how such files say that there is no normal.
            array = np.where(codes.any(axis=-1, keepdims=True), array, 0)
    elif data[:4] == b"\x76\x2f\x31\x01":
        exr = read_exr_colours if quantity.channels == 3 else _exr_alone
        array = exr(data, name, max_pixels=max_pixels)
    elif data[:6] == b"\x93NUMPY":
        array = read_npy(data, name)
        bounded(array.size // quantity.channels, max_pixels, name)
    elif quantity.channels == 1:
        array = read_map(data, name, dataset=dataset, max_pixels=max_pixels)
    else:
        raise FrameError(f"{name}: {quantity.value} is read from PNG, NPY and EXR")
    return _channels_first(array, quantity, name)


def sound(values: NDArray[np.float32], name: str, quantity: Quantity) -> NDArray[np.float32]:
    """The map as it is judged: normals of length 1; the others as they are.

    Args:
        values: (C, H, W); what is not finite is left to the scores, which it voids.

    Raises:
        FrameError: the values cannot be of that layer: vectors without length, of another length, or all facing away;
            albedo, roughness or metallicity outside [0, 1]; light below 0.
    """
    known = values[:, np.isfinite(values).all(axis=0)]
    if not known.size:
        return values
    if quantity is not Quantity.NORMALS:
        low, high = float(known.min()), float(known.max())
        top = np.inf if quantity in LIGHT else 1 + SLACK
        if low < -SLACK or high > top:
            asked = "not below 0" if quantity in LIGHT else "within 0 and 1"
            raise FrameError(f"{name}: values from {low:.3g} to {high:.3g}; {quantity.value} is {asked}")
        return values.clip(0, None)
    lengths = np.linalg.norm(known, axis=0)
    middle = float(np.median(lengths))
    if not SHORT <= middle <= LONG:
        raise FrameError(f"{name}: vectors of length {middle:.3g} (median); normals have length 1")
    away = float((known[2] < 0).mean())
    if away > AWAY:
        raise FrameError(f"{name}: {100 * away:.0f} % of the normals face away; z is to point to the viewer, y up")
    return _unit(values)


def linear(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear values of gamma-coded ones that are not below 0, x^2.2."""
    return np.power(values, np.float32(GAMMA), dtype=np.float32)


def resized(values: NDArray[np.float32], image: tuple[int, int], quantity: Quantity) -> NDArray[np.float32]:
    """A map (C, h, w) at the size of its image: bilinear, pixel centres over pixel centres; normals unit again."""
    if values.shape[1:] == image:
        return values
    tensor = torch.from_numpy(values)[None]
    larger = torch.nn.functional.interpolate(tensor, image, mode="bilinear", align_corners=False)[0].numpy()
    return _unit(larger) if quantity is Quantity.NORMALS else larger


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(values, axis=0)
    return (values / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _channels_first(array: NDArray[np.generic], quantity: Quantity, name: str) -> NDArray[np.float32]:
    values, channels = array.astype(np.float32), quantity.channels
    if channels == 1:
        if values.ndim == 3 and values.shape[2] in (3, 4) and (values[..., :3] == values[..., :1]).all():
            values = values[..., 0]
        values = values.squeeze()
        if values.ndim == 2:
            return values[None]
    elif values.ndim == 3 and values.shape[2] in (3, 4):
        return np.ascontiguousarray(values[..., :3].transpose(2, 0, 1))
    elif values.ndim == 3 and len(values) == 3:
        return values
    shape = "(height, width, 3)" if channels == 3 else "(height, width)"
    raise FrameError(f"{name}: has the shape {array.shape}; {quantity.value} has {shape}")


def _exr_alone(data: bytes, name: str, *, max_pixels: int) -> NDArray[np.float32]:
    return read_exr(data, name, "Y", max_pixels=max_pixels)


def _png(data: bytes, name: str, max_pixels: int) -> NDArray[np.generic]:
    """Samples as stored, colours in the order R, G, B. Colours of 16 bits are OpenCV's: Pillow would halve them."""
    if len(data) < 26 or data[24] != 16 or data[25] not in (2, 6):
        return read_png(data, name, max_pixels=max_pixels)
    width, height = struct.unpack(">II", data[16:24])
    bounded(width * height, max_pixels, name)
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if b"IEND" in data[-1024:] else None
    if found is None:
        raise FrameError(f"{name}: damaged PNG")
    return np.ascontiguousarray(found[..., 2::-1])
