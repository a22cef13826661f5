"""Streams within streams: a range of a file, and a decompressed file that may not go on for ever."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import BinaryIO, cast

BUFFER_BYTES = 256 * 2**10
STEP = 2**20
ReadRange = Callable[[int, int], bytes]
"""(offset, size) → bytes, fewer at the end of the file."""


class _Window(io.RawIOBase):
    """``size`` bytes from ``offset`` on of what ``read_range`` reads, as a seekable file."""

    def __init__(self, read_range: ReadRange, offset: int, size: int) -> None:
        super().__init__()
        self._read_range, self._offset, self._size, self._at = read_range, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + position)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._at))
        data = self._read_range(self._offset + self._at, count)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Metered(io.RawIOBase):
    """A stream that can be read on and started over, of which at most ``allowed`` bytes are read in all."""

    def __init__(self, stream: BinaryIO, allowed: int, why: str) -> None:
        super().__init__()
        self._stream, self._left, self._why, self._at = stream, allowed, why, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(self._why)
        return len(data)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        if position < self._at:
            self._stream.seek(0)
            self._at = 0
        while self._at < position and self.read(min(STEP, position - self._at)):
            pass
        return self._at

    def tell(self) -> int:
        return self._at


def metered(stream: BinaryIO, allowed: int, why: str) -> BinaryIO:
    """A stream that can be read on and started over until ``allowed`` bytes were read in all; then a ReadError."""
    return cast(BinaryIO, _Metered(stream, allowed, why))


def ranged_file(read_range: ReadRange, offset: int, size: int) -> BinaryIO:
    """``size`` bytes from ``offset`` on as a buffered, seekable file; every fetch is one call of ``read_range``."""
    return cast(BinaryIO, io.BufferedReader(_Window(read_range, offset, size), BUFFER_BYTES))
