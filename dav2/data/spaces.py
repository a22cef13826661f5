"""Which colour space an image file says its pixels are in, wherever it says so, as an ICC profile."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from dav2.data import png

HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, by their numbers in ITU-T H.273."""
_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
"""Chromaticities of red, green, blue and white, by their numbers in ITU-T H.273."""
_ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65)
_GAMMA = {4: 2.2, 5: 2.8, 8: 1.0}
"""Transfer curves that are a power; all others of ordinary range count as that of sRGB."""
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_EXIF, _INTEROPERABILITY, _COLOUR_SPACE = 0x8769, 0xA005, 0xA001


class Coded(NamedTuple):
    """Numbers of primaries and transfer curve in ITU-T H.273."""

    primaries: int
    transfer: int


def coded(data: bytes) -> Coded | None:
    """What a PNG's ``cICP`` chunk or an AVIF's ``nclx`` box says, or ``None``."""
    if data.startswith(png.MAGIC):
        numbers = png.head(data, b"cICP")
        return Coded(numbers[0], numbers[1]) if numbers and len(numbers) == 4 else None
    at = data.find(b"colrnclx", 0, 2**16) if data[4:8] == b"ftyp" else -1
    return Coded(*struct.unpack_from(">2H", data, at + 8)) if 0 <= at <= len(data) - 12 else None


def high_range(image: Image.Image, data: bytes) -> str | None:
    """Name of the curve of high dynamic range that an image is stored by, or ``None`` for ordinary ones."""
    said = coded(data) or _of_profile(image.info.get("icc_profile"))
    return HDR.get(said.transfer) if said else None


def _of_profile(profile: object) -> Coded | None:
    """What the ``cicp`` tag of an ICC profile says; a profile of high range cannot be followed without it."""
    if not isinstance(profile, bytes) or len(profile) < 132:
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        name, at, size = struct.unpack_from(">4sII", profile, entry)
        if name == b"cicp" and size >= 12 and at + 12 <= len(profile):
            return Coded(profile[at + 8], profile[at + 9])
    return None


def stated(image: ImageFile.ImageFile, data: bytes) -> bytes | None:
    """Profile of the colours of a loaded image; ``None`` where it says sRGB or nothing.

    In a PNG ``cICP`` comes before ``iCCP``, that before ``sRGB``, that before ``cHRM`` and ``gAMA`` (PNG, third
    edition, 4.3). Cameras say Adobe RGB by EXIF alone: an interoperability index of R03 (DCF 2.0).
    """
    embedded = image.info.get("icc_profile")
    if data.startswith(png.MAGIC):
        embedded = png.profile(data) or embedded
    said = coded(data)
    if said is not None and said.primaries in _PRIMARIES and (data.startswith(png.MAGIC) or not embedded):
        return matrix_profile(*_PRIMARIES[said.primaries], gamma=_GAMMA.get(said.transfer))
    if isinstance(embedded, bytes) and embedded:
        return embedded
    if data.startswith(png.MAGIC) and png.head(data, b"sRGB") is None:
        places, gamma = png.head(data, b"cHRM"), png.head(data, b"gAMA")
        if places and gamma and len(places) == 32 and len(gamma) == 4:
            return _of_chunks(places, gamma)
    return matrix_profile(*_ADOBE_RGB, gamma=563 / 256) if _says_adobe_rgb(image) else None


def _of_chunks(places: bytes, gamma: bytes) -> bytes | None:
    xs, ys = ([value / 100_000 for value in struct.unpack(">8I", places)[first::2]] for first in (0, 1))
    white, red, green, blue = zip(xs, ys, strict=True)
    try:
        return matrix_profile(red, green, blue, white, gamma=100_000 / struct.unpack(">I", gamma)[0])
    except (ArithmeticError, ValueError, struct.error):
        return None


def _says_adobe_rgb(image: ImageFile.ImageFile) -> bool:
    try:
        tags = image.getexif()
        said = tags.get_ifd(_EXIF)
        # 2 is no value of the standard, but what some cameras write.
        if said.get(_COLOUR_SPACE) == 2:
            return True
        return _INTEROPERABILITY in said and str(tags.get_ifd(_INTEROPERABILITY).get(1)).strip("\0 ") == "R03"
    except Exception:
        return False


Place = tuple[float, float]


def matrix_profile(red: Place, green: Place, blue: Place, white: Place, *, gamma: float | None) -> bytes:
    """An ICC profile (version 2 tags, 4 for the curve of sRGB) of a display.

    Args:
        red: chromaticity x, y, as those of the others.
        gamma: power of its curve; ``None`` for that of sRGB.

    Raises:
        ValueError, ArithmeticError, struct.error: no display has these colours.
    """
    ends = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (red, green, blue, white)])
    to_xyz = ends[:3].T * np.linalg.solve(ends[:3].T, ends[3])
    gain = (_BRADFORD @ _D50) / (_BRADFORD @ ends[3])
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ to_xyz
    if gamma is None:
        curve = b"para\0\0\0\0" + struct.pack(">2H", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = {name: b"XYZ \0\0\0\0" + _fixed(*adapted[:, at]) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags |= {
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*_D50),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"dav2\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", start + len(body), len(content))
        body += content
    version = 0x04000000 if gamma is None else 0x02100000
    head = struct.pack(">I4sI", start + len(body), b"", version) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + _fixed(*_D50)).ljust(128, b"\0") + table + body


def _fixed(*values: float) -> bytes:
    """Numbers as ``s15Fixed16``."""
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))
