"""Tar and zip archives read in place, member by member, without trusting them.

Nothing is ever extracted to disk, so no name from an archive reaches the file system; names are cleaned all the same,
because keys are made of them. Members that are not plain files under the archive's own root (absolute paths, ``..``,
links, devices, encrypted members) are refused with a reason instead of being skipped, so that they are counted.

Scanning a tar reads every header in it. The result is kept as a small JSON file under ``.dav2/cache`` (or the folder
in ``DAV2_CACHE``), named after the archive's path, size and modification time.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from dav2.data.raw.contents import Contents, cached
from dav2.data.raw.members import clean_name, is_noise, printable
from dav2.data.raw.streams import ReadRange, metered, ranged_file
from dav2.data.storage import StorageError
from dav2.failures import reason

OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".tar": lambda stream: stream,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
SUFFIXES = (*OPENERS, ".zip")
# What the standard library raises on damaged archives. Other OSErrors are of the disk or the network: what they hide
# must not be taken for damage, and least of all remembered as such.
ARCHIVE_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError,
                  NotImplementedError)  # fmt: skip
DAMAGE = (*ARCHIVE_DAMAGE, OSError)
RATIO, FREE = 100, 2**30
"""An archive may unpack to this many times its size and these bytes; one that goes on and on is made to do so."""
AGAIN = 20
"""How often a compressed tar may be unpacked again because its files are wanted in another order than they lie in."""
DEEPEST = 4
"""Tars within tars that are entered; ImageNet-21K has two."""


class SourceError(ValueError):
    """A data set that cannot be used as it lies there; the message names the path and what to do."""


def suffix_of(name: str) -> str | None:
    """The archive suffix that ``name`` ends with, or ``None``."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def is_damage(error: Exception) -> bool:
    """Whether an error comes from what an archive holds, rather than from the disk or the network it is read over.

    Decompressors raise an ``OSError`` without a number; what the system reports has one.
    """
    return not isinstance(error, StorageError) and not (isinstance(error, OSError) and error.errno is not None)


class TarArchive:
    """A tar, plain or compressed, of files or of further tars (ImageNet-21K), as one flat list of members.

    A compressed tar is read as a forward stream: reading members in the order of the archive costs one pass, going
    back costs starting over.
    """

    def __init__(
        self, open_file: Callable[[], BinaryIO], read_range: ReadRange, label: str, size: int, changed: str
    ) -> None:
        self._open_file, self._read_range, self.label, self._size = open_file, read_range, label, size
        self._wrap = OPENERS[suffix_of(label) or ".tar"]
        self._plain = (suffix_of(label) or ".tar") == ".tar"
        self._stream: BinaryIO | None = None
        self._lock = threading.Lock()
        self.contents = cached(f"{label}\n{size} {changed}", self._scan)
        self._end = max((offset + size for offset, size in self.contents.members.values()), default=0)

    def read(self, name: str) -> bytes:
        """One member, of at most ``limit`` bytes."""
        offset, size = self.contents.members[name]
        if self._plain:
            return _exactly(self._read_range(offset, size), size, name)
        with self._lock:
            if self._stream is None:
                why = "its files are wanted in another order than they lie in, which costs hours; unpack it first"
                self._stream = metered(self._wrap(self._open_file()), FREE + AGAIN * self._end, why)
            self._stream.seek(offset)
            return _exactly(self._stream.read(size), size, name)

    def open(self, name: str) -> BinaryIO:
        """A seekable stream of one member; of compressed archives it is held in memory."""
        if not self._plain:
            return io.BytesIO(self.read(name))
        return ranged_file(self._read_range, *self.contents.members[name])

    def _scan(self) -> Contents:
        contents = Contents()
        with self._open_file() as file:
            try:
                why = f"it unpacks to more than {RATIO} times its size, as made to keep a machine busy; unpack it first"
                stream = self._wrap(file)
                _scan_tar(stream if self._plain else metered(stream, FREE + RATIO * self._size, why), "", contents)
            except Exception as error:
                if not is_damage(error):
                    raise
                contents.refused.append(("", _damaged(error)))
        return contents


class ZipArchive:
    """A zip of ``size`` bytes; the central directory is its index."""

    def __init__(self, open_zip: Callable[[], zipfile.ZipFile], size: int) -> None:
        self._lock = threading.Lock()
        self.contents = Contents()
        self._infos: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = open_zip()
            infos = self._zip.infolist()
        except Exception as error:
            hint = "; a split archive needs all its parts beside it, named like set.z01, set.z02, …, set.zip"
            why = str(error) if isinstance(error, zipfile.BadZipFile) else reason(error)
            self.contents.refused.append(("", f"not a readable zip: {why}{hint}"))
            return
        if sum(info.file_size for info in infos) > FREE + RATIO * size:
            why = f"unpacks to more than {RATIO} times its size, as made to keep a machine busy; unpack it first"
            self.contents.refused.append(("", why))
            return
        for info in infos:
            if info.is_dir():
                continue
            if is_noise(info.filename):
                self.contents.noise += 1
                continue
            try:
                name = clean_name(_repaired(info))
                _refuse_special(info)
            except ValueError as error:
                self.contents.refused.append((printable(info.filename), str(error)))
                continue
            self.contents.add(name, info.header_offset, info.file_size)
            self._infos[name] = info

    def read(self, name: str) -> bytes:
        """One member, of at most ``limit`` bytes."""
        with self._lock:
            try:
                return self._zip.read(self._infos[name])
            except Exception as error:
                raise OSError(f"{name}: damaged in its archive: {reason(error)}") from error

    def open(self, name: str) -> BinaryIO:
        """One member to read from the start."""
        return io.BytesIO(self.read(name))


def _scan_tar(stream: BinaryIO, prefix: str, contents: Contents, base: int = 0, depth: int = 1) -> None:
    """Add the members of a tar that starts at ``base`` of the archive; tars within it are entered."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            if not 0 <= member.size < 2**62:
                # tarfile would step back over what it has read, for ever.
                raise tarfile.ReadError(f"{printable(member.name)}: a size of {member.size} bytes")
            if member.isdir():
                continue
            if is_noise(member.name):
                contents.noise += 1
                continue
            try:
                name = clean_name(member.name)
                if not member.isreg() or member.issparse():
                    raise ValueError(f"{_kind(member)}, not a plain file")
                if name.lower().endswith(".tar") and depth == DEEPEST:
                    raise ValueError(f"tar within tar, more than {DEEPEST} deep; unpack it first")
            except ValueError as error:
                contents.refused.append((prefix + printable(member.name), str(error)))
                continue
            if name.lower().endswith(".tar"):
                inner = ranged_file(partial(_read_at, stream), member.offset_data, member.size)
                try:
                    _scan_tar(inner, f"{prefix}{name[:-4]}/", contents, base + member.offset_data, depth + 1)
                except Exception as error:
                    if not is_damage(error):
                        raise
                    contents.refused.append((prefix + name, _damaged(error)))
            else:
                contents.add(prefix + name, base + member.offset_data, member.size)
        # tarfile takes a damaged header for the end; the end is zeros or nothing.
        stream.seek(tar.offset)
        if stream.read(512).strip(b"\0"):
            raise tarfile.ReadError(f"no valid header at byte {base + tar.offset}")


def _damaged(error: Exception) -> str:
    known = isinstance(error, (*ARCHIVE_DAMAGE, OSError))
    return f"archive is damaged or cut short: {error if known else f'{type(error).__name__}: {error}'}"


def _read_at(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    return stream.read(size)


def _kind(member: tarfile.TarInfo) -> str:
    return "link" if member.issym() or member.islnk() else "sparse file" if member.issparse() else "special file"


def _repaired(info: zipfile.ZipInfo) -> str:
    """UTF-8 names stored without the UTF-8 flag come out of ``zipfile`` as CP437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _refuse_special(info: zipfile.ZipInfo) -> None:
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError("link, not a plain file")
    if info.flag_bits & 0x1:
        raise ValueError("encrypted member")


def _exactly(data: bytes, size: int, name: str) -> bytes:
    if len(data) != size:
        raise OSError(f"{name}: archive ends after {len(data)} of {size} bytes")
    return data
