"""Zip archives in several files (``set.z01``, ``set.z02``, …, ``set.zip``), read in place as one.

BlendedMVS+ and ++ are published so. Python's ``zipfile`` finds its way in the parts laid end to end, but for two
things, which are put right here: the locator of a ZIP64 directory, which counts parts, and where members begin, which
is told as a part and an offset in it (PKWARE's APPNOTE.TXT, 4.3, 4.4 and 8.5).
"""

from __future__ import annotations

import struct
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import BinaryIO

ReadPart = Callable[[str, int, int], bytes]
"""(part, offset, size) → bytes."""
_END, _END_BYTES = b"PK\x05\x06", 22
_LOCATOR = struct.Struct("<4sLQL")
_END64_BYTES = 56
_LONGEST_COMMENT = 2**16


def part_name(archive: str, number: int) -> str:
    """Name of part ``number`` ≥ 1 of ``archive``, whose last part is the ``.zip`` itself."""
    return f"{archive[:-4]}.z{number:02d}"


class SplitZip:
    """The parts of one archive, laid end to end.

    Args:
        parts: (name, bytes) of every part, the ``.zip`` last.
        read: reads from a part.

    Raises:
        BadZipFile: the last part is not the end of a zip, or there are fewer or more parts than it says.
    """

    def __init__(self, parts: Sequence[tuple[str, int]], read: ReadPart) -> None:
        self._names, self._read = [name for name, _ in parts], read
        self._starts = [0, *accumulate(size for _, size in parts)]
        self.size = self._starts[-1]
        self._patch = (0, b"")
        self._directory = self._find_directory()

    def range(self, offset: int, size: int) -> bytes:
        """Bytes of the whole, with the locator as that of an archive in one file."""
        data = bytearray()
        while size > len(data) and offset + len(data) < self.size:
            at = offset + len(data)
            part = bisect_right(self._starts, at) - 1
            count = min(size - len(data), self._starts[part + 1] - at)
            found = self._read(self._names[part], at - self._starts[part], count)
            if not found:
                raise OSError(f"{self._names[part]} ends before byte {at - self._starts[part]}")
            data += found
        first, patch = self._patch
        for index in range(max(first, offset), min(first + len(patch), offset + len(data))):
            data[index - offset] = patch[index - first]
        return bytes(data)

    def open(self, window: Callable[[Callable[[int, int], bytes], int, int], BinaryIO]) -> zipfile.ZipFile:
        """The archive, its members where they lie in the whole.

        Args:
            window: makes a seekable file of a function that reads ranges, an offset and a size.
        """
        archive = zipfile.ZipFile(window(self.range, 0, self.size))
        # zipfile takes all offsets to be meant from one point, and that point for where the directory says it is.
        shift = archive.start_dir - self._directory
        for info in archive.infolist():
            if info.volume >= len(self._names):
                raise zipfile.BadZipFile(f"{info.filename} is in part {info.volume + 1} of {len(self._names)}")
            info.header_offset += self._starts[info.volume] - shift
        end = archive.start_dir
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset, reverse=True):
            # Newer versions of zipfile keep where the next member begins, to refuse those that overlap.
            if hasattr(info, "_end_offset"):
                info._end_offset = end
            end = info.header_offset
        return archive

    def _find_directory(self) -> int:
        """Offset of the directory as the archive tells it, in its part; prepares the patch."""
        tail_at = max(0, self.size - _END_BYTES - _LONGEST_COMMENT - _LOCATOR.size - _END64_BYTES)
        tail = self.range(tail_at, self.size - tail_at)
        end = tail.rfind(_END)
        if end < 0 or len(tail) - end < _END_BYTES:
            raise zipfile.BadZipFile(f"{self._names[-1]} is not the last part of a zip")
        last, directory = struct.unpack_from("<4xH10xL", tail, end)
        signature, disk, relative, disks = _LOCATOR.unpack_from(tail, max(0, end - _LOCATOR.size))
        wide = signature == b"PK\x06\x07"
        expected = disks if wide else last + 1
        if expected != len(self._names):
            raise zipfile.BadZipFile(
                f"{self._names[-1]} is the last of {expected} parts, of which {len(self._names)} are there"
            )
        if wide:
            record = self._starts[min(disk, last, len(self._names) - 1)] + relative
            found = self.range(record, _END64_BYTES)
            if len(found) < _END64_BYTES:
                raise zipfile.BadZipFile(f"{self._names[-1]} has no directory where it says")
            (directory,) = struct.unpack_from("<Q", found, 48)
            self._patch = tail_at + end - _LOCATOR.size, _LOCATOR.pack(signature, 0, record, 1)
        return int(directory)
