"""The chunks of a PNG file: what a decoder must see, and what it may well be spared."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 16 * 2**20
"""Largest colour profile that is unpacked."""
_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, first byte, byte after the last) of each chunk up to the end or the first that is not whole.

    The range covers the whole chunk with length and checksum; its content is 8 bytes in and 4 bytes short.
    """
    at = len(MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def without_words(data: bytes) -> bytes:
    """The file without texts and colour profile: Pillow takes a picture with much of either for damaged."""
    if not data.startswith(MAGIC):
        return data
    kept, last = bytearray(MAGIC), len(MAGIC)
    for kind, start, end in chunks(data):
        if kind not in (*_TEXT, b"iCCP"):
            kept += data[start:end]
        last = end
    return bytes(kept + data[last:])


def profile(data: bytes) -> bytes | None:
    """The colour profile, or ``None`` where there is none, a damaged one, or one past ``MAX_PROFILE``."""
    _, _, packed = (head(data, b"iCCP") or b"").partition(b"\0")
    try:
        unpacked = zlib.decompressobj().decompress(packed[1:], MAX_PROFILE + 1)
    except zlib.error:
        return None
    return unpacked if 0 < len(unpacked) <= MAX_PROFILE else None


def significant_bits(data: bytes) -> int | None:
    """Bits that samples really have by the ``sBIT`` chunk (the most of any channel), or ``None`` where it is absent."""
    bits = head(data, b"sBIT")
    return max(bits) if bits else None


def head(data: bytes, kind: bytes) -> bytes | None:
    """Content of the first chunk of a kind that stands before the pixels, or ``None``."""
    for found, start, end in chunks(data):
        if found == kind:
            return data[start + 8 : end - 4]
        if found == b"IDAT":
            break
    return None


def sample_depth(data: bytes) -> int:
    """Bits of a stored sample by the header; 0 where there is no header."""
    return data[24] if len(data) > 24 and data[12:16] == b"IHDR" else 0
