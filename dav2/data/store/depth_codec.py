"""Depth and disparity as 16-bit integers.

**Metric depth** is log-coded over 1e-3 … 1e4 m (or as many of a scene's own unit where ``metric`` is false)::

    code 0            unknown (nan)
    code 1 … 65534    depth = 1e-3 · exp((code − 1) · ln(1e7) / 65533)
    code 65535        sky (+inf)

Neighbouring codes differ by a factor of 1 + 2.46e-4, so rounding costs at most 1.25e-4 of the depth (0.0125 %) at
every distance, float32 arithmetic included. Finite depth outside the range is stored as the nearest end of it;
:func:`outside_range` counts such pixels. The codes lie in a small file of our own: a header (magic, height, width and
CRC-32 of what follows, little-endian), then what :mod:`dav2.data.store.packing` makes of the codes.

**Disparity** (pseudo-labels) is linear between the least and greatest value of its map, which are kept beside it::

    disparity = min + code · (max − min) / (2^bits − 1)

so rounding costs at most (max − min) / 2^(bits + 1): 7.6e-6 of the range at 16 bits, 1.2e-4 at 12.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.data.blocks import row_blocks
from dav2.data.store.packing import MAX_PIXELS, CodecError, Codes, pack, unpack

NEAREST, FARTHEST = 1e-3, 1e4
UNKNOWN, SKY = 0, 65535
LEVELS = 65533
"""Steps between code 1 and code 65534."""
CODEC_BITS = {"png16": (8, 16), "jpegls12": (8, 12), "jxl12": (9, 12)}
"""Least and greatest bit depth of each disparity codec."""

_STEP = np.log(FARTHEST / NEAREST) / LEVELS
_MAGIC = b"DAV2DEP2"
_HEADER = struct.Struct("<8sIII")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Level 1 costs 5–10 % more bytes than level 6 on coded depth and a sixth of its time.
_PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 1]

Map = NDArray[np.float32]


@functools.cache
def metric_table() -> Map:
    """Depth of every code: float32 (65536,), ``nan`` at 0 and ``+inf`` at 65535. Do not write to it."""
    codes = np.arange(65536, dtype=np.float64)
    table = (NEAREST * np.exp((codes - 1) * _STEP)).astype(np.float32)
    table[UNKNOWN], table[SKY] = np.nan, np.inf
    table.setflags(write=False)
    return table


def metric_codes(depth: Map) -> Codes:
    """Codes uint16 (H, W) of depth float32 (H, W): positive, ``+inf`` sky, ``nan`` unknown."""
    codes = np.empty(depth.shape, np.uint16)
    for rows in row_blocks(*depth.shape):
        steps = depth[rows] / np.float32(NEAREST)
        np.log(steps, out=steps)
        steps /= np.float32(_STEP)
        np.rint(steps, out=steps)
        sky = depth[rows] == np.inf
        np.clip(steps, 0, LEVELS, out=steps)
        steps += 1
        # Of nan and a number, fmax takes the number; the cast of nan alone is not defined.
        np.fmax(steps, UNKNOWN, out=steps)
        codes[rows] = steps
        if sky.any():
            np.copyto(codes[rows], SKY, where=sky)
    return codes


def outside_range(depth: Map) -> float:
    """Share of the finite pixels nearer than 1e-3 or farther than 1e4, which storage would clip."""
    nearest, farthest = NEAREST * (1 - 1e-4), FARTHEST * (1 + 1e-4)
    if np.fmin.reduce(depth, axis=None) >= nearest and np.fmax.reduce(depth, axis=None) <= farthest:
        return 0.0
    finite = np.count_nonzero(np.isfinite(depth))
    near = np.count_nonzero(depth < nearest)
    far = np.count_nonzero(depth > farthest) - np.count_nonzero(np.isposinf(depth))
    return (near + far) / finite if finite else 0.0


def encode_metric_codes(codes: Codes) -> bytes:
    """Stored form of the codes uint16 (H, W) of :func:`metric_codes`."""
    packed = pack(codes)
    return _HEADER.pack(_MAGIC, *codes.shape, zlib.crc32(packed)) + packed


def decode_metric(data: bytes) -> Map:
    """Depth of what :func:`encode_metric_codes` stored: float32 (H, W), ``nan`` unknown, ``+inf`` sky.

    Raises:
        CodecError: not the whole of what was stored.
    """
    return metric_table()[decode_metric_codes(data)]


def decode_metric_codes(data: bytes) -> Codes:
    """Codes uint16 (H, W) of stored depth; its size is read from the header before anything is decoded."""
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        raise CodecError("stored depth is of another format; ingest this source again")
    _, height, width, checksum = _HEADER.unpack_from(data)
    return unpack(data[_HEADER.size :], (height, width), checksum, "depth")


def encode_codes(codes: Codes) -> bytes:
    """16-bit grey PNG of codes uint16 (H, W)."""
    done, data = cv2.imencode(".png", codes, _PNG_OPTIONS)
    if not done:
        raise CodecError(f"PNG encoding of {codes.dtype} {codes.shape} failed")
    return data.tobytes()


def decode_codes(data: bytes) -> Codes:
    """Codes uint16 (H, W) of a 16-bit grey PNG; its size is read from the header before anything is decoded."""
    if data[:8] != _PNG_MAGIC or data[12:16] != b"IHDR" or len(data) < 33:
        raise CodecError("stored label is not a PNG file")
    width, height, bits, colour = struct.unpack(">IIBB", data[16:26])
    if (bits, colour) != (16, 0):
        raise CodecError(f"stored label must be 16-bit grey, not {bits}-bit of colour type {colour}")
    if width * height > MAX_PIXELS:
        raise CodecError(f"stored label claims {width} × {height} pixels, more than {MAX_PIXELS}")
    # cv2 fills the missing rows of a cut-off file with zeros; the end chunk tells.
    codes = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if b"IEND" in data[-12:] else None
    if codes is None or codes.shape != (height, width):
        raise CodecError("stored label is cut off or damaged")
    return codes.astype(np.uint16, copy=False)


def encode_disparity(disparity: Map, bits: int = 16, codec: str = "png16") -> tuple[bytes, dict[str, object]]:
    """Encode a finite disparity map float32 (H, W) of any range.

    Args:
        bits: bit depth; 8–16 for ``png16``, 8–12 for ``jpegls12``, 9–12 for ``jxl12``.

    Returns:
        The bytes, and ``{"min", "max", "bits", "codec"}``, which decoding needs and JSON holds without loss.

    Raises:
        CodecError: values that are not finite, or a codec or bit depth that does not exist.
    """
    _check_codec(codec, bits)
    if disparity.ndim != 2 or not disparity.size or not np.isfinite(disparity).all():
        raise CodecError(f"disparity must be finite and of shape (H, W), not {disparity.shape} with gaps")
    low, high = float(disparity.min()), float(disparity.max())
    scale = (2**bits - 1) / (high - low) if high > low else 0.0
    codes = np.rint((disparity.astype(np.float64) - low) * scale).astype(np.uint16)
    return _encode_linear(codes, bits, codec), {"min": low, "max": high, "bits": bits, "codec": codec}


def decode_disparity(data: bytes, meta: Mapping[str, Any]) -> Map:
    """Inverse of :func:`encode_disparity`: float32 (H, W).

    Raises:
        CodecError: damaged bytes or ``meta`` without what is needed.
    """
    try:
        low, high, bits, codec = float(meta["min"]), float(meta["max"]), int(meta["bits"]), str(meta["codec"])
    except KeyError as error:
        raise CodecError(f"label description lacks {error}") from None
    codes = decode_disparity_codes(data, codec, bits)
    step = (high - low) / (2**bits - 1)
    if 0 < step < np.finfo(np.float32).tiny:
        # Below float32's normal numbers a step has too few digits left in it.
        return (codes * step + low).astype(np.float32)
    return codes.astype(np.float32) * np.float32(step) + np.float32(low)


def decode_disparity_codes(data: bytes, codec: str, bits: int) -> Codes:
    """Codes uint16 (H, W) in 0 … 2^bits − 1, before the range is applied."""
    _check_codec(codec, bits)
    if codec == "png16":
        return decode_codes(data)
    import imagecodecs

    decode = imagecodecs.jpegls_decode if codec == "jpegls12" else imagecodecs.jpegxl_decode
    try:
        codes = np.asarray(decode(data))
    except RuntimeError as error:
        raise CodecError(f"stored label is damaged: {error}") from None
    if codes.ndim != 2:
        raise CodecError(f"stored label must be one channel, not {codes.shape}")
    return codes.astype(np.uint16, copy=False)


def _encode_linear(codes: Codes, bits: int, codec: str) -> bytes:
    if codec == "png16":
        return encode_codes(codes)
    import imagecodecs

    if codec == "jpegls12":
        return bytes(imagecodecs.jpegls_encode(codes))
    return bytes(imagecodecs.jpegxl_encode(codes, lossless=True, effort=1, bitspersample=bits))


def _check_codec(codec: str, bits: int) -> None:
    if codec not in CODEC_BITS:
        raise CodecError(f"no label codec '{codec}'; there are: {', '.join(CODEC_BITS)}")
    low, high = CODEC_BITS[codec]
    if not low <= bits <= high:
        raise CodecError(f"codec '{codec}' stores {low} to {high} bits, not {bits}")
