"""Layers of a frame as 16-bit integers: normals as points of an octahedron, everything else as half floats.

**Normals** are projected onto the octahedron |x| + |y| + |z| = 1, whose lower half (z < 0) is folded out around the
upper one, and the two coordinates p in [−1, 1] become::

    code 0            unknown (nan)
    code 1 … 65535    p = (code − 1) / 32767 − 1

so that rounding turns a normal by at most 0.004°, and (0, 0, 1) comes back exactly. Source of the projection: Cigolle
et al., "A Survey of Efficient Representations for Independent Unit Vectors", JCGT 2014.

**Albedo, shading, residual, roughness, metallicity** are IEEE half floats: at most 4.9e-4 of the value, or 3e-8 below
6e-5; ``nan`` is unknown. Hypersim's own files hold half floats, which are kept without loss. Light above 65,504 is
stored as that.

The file: a header (magic, the quantity's number, planes, height, width, CRC-32 of what follows, little-endian), then
what :mod:`dav2.data.store.packing` makes of the codes, plane after plane.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import known_pixels
from dav2.data.store.packing import CodecError, Codes, pack, unpack
from dav2.maps import LAYERS, Quantity

Map = NDArray[np.float32]

PLANES = {quantity: 2 if quantity is Quantity.NORMALS else quantity.channels for quantity in LAYERS}
"""Planes of codes of each layer."""
BRIGHTEST = 65504.0
"""Greatest half float."""
_HALF = 32767
_MAGIC = b"DAV2LYR1"
_HEADER = struct.Struct("<8sHHIII")


def layer_codes(quantity: Quantity, values: Map) -> Codes:
    """Codes uint16 (P, H, W) of a layer float32 (H, W) or (H, W, 3), ``nan`` unknown."""
    if quantity is Quantity.NORMALS:
        return _octahedral_codes(values)
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    codes: Codes = np.minimum(planes, np.float32(BRIGHTEST)).astype(np.float16).view(np.uint16)
    return np.where(np.isnan(planes), np.float16(np.nan).view(np.uint16), codes)


def layer_values(quantity: Quantity, codes: Codes) -> Map:
    """Inverse of :func:`layer_codes`: float32 (H, W) or (H, W, 3)."""
    if quantity is Quantity.NORMALS:
        return _octahedral_values(codes)
    values = np.ascontiguousarray(codes).view(np.float16).astype(np.float32)
    return values[0] if quantity.channels == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))


def encode_layer(quantity: Quantity, values: Map) -> bytes:
    """Stored form of a layer."""
    codes = layer_codes(quantity, values)
    packed = pack(codes)
    return _HEADER.pack(_MAGIC, LAYERS.index(quantity), *codes.shape, zlib.crc32(packed)) + packed


def decode_layer(quantity: Quantity, data: bytes) -> Map:
    """Inverse of :func:`encode_layer`.

    Raises:
        CodecError: not the whole of what was stored, or another layer.
    """
    return layer_values(quantity, decode_layer_codes(quantity, data))


def decode_layer_codes(quantity: Quantity, data: bytes) -> Codes:
    """Codes uint16 (P, H, W) of a stored layer; its size is read from the header before anything is decoded.

    Raises:
        CodecError: not the whole of what was stored, or another layer.
    """
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        raise CodecError(f"stored {quantity} is of another format; ingest this source again")
    _, number, planes, height, width, checksum = _HEADER.unpack_from(data)
    if number != LAYERS.index(quantity) or planes != PLANES[quantity]:
        raise CodecError(f"stored layer is another than {quantity}")
    return unpack(data[_HEADER.size :], (planes, height, width), checksum, quantity.value)


def _octahedral_codes(normals: Map) -> Codes:
    known = known_pixels(normals)
    x, y, z = np.where(known[..., None], normals, np.array([0, 0, 1], np.float32)).transpose(2, 0, 1)
    total = np.abs(x) + np.abs(y) + np.abs(z)
    p, q = x / total, y / total
    folded = (1 - np.abs(q)) * np.copysign(1, p), (1 - np.abs(p)) * np.copysign(1, q)
    points = np.stack([np.where(z < 0, fold, flat) for fold, flat in zip(folded, (p, q), strict=True)])
    codes = np.rint((points + 1) * _HALF) + 1
    return np.where(known, codes, 0).astype(np.uint16)


def _octahedral_values(codes: Codes) -> Map:
    p, q = (codes.astype(np.float32) - 1) / np.float32(_HALF) - 1
    z = 1 - np.abs(p) - np.abs(q)
    below = np.maximum(-z, 0)
    normals = np.stack([p - np.copysign(below, p), q - np.copysign(below, q), z], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[(codes == 0).any(axis=0)] = np.nan
    return normals.astype(np.float32, copy=False)
