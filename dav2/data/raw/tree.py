"""A data set's files, wherever they are: a folder, an archive, a folder of archives, or any of these under ``s3://``.

Readers see one sorted list of relative names. A file inside an archive is called ``archive.tar!/member``; where the
data set *is* one archive, just ``member``. Local paths never go through fsspec. A tree can be sent to another
process: open archives stay behind and are opened again on first use, also after a fork.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from dav2.data.frame import FrameError
from dav2.data.raw.archives import (
    DAMAGE,
    SourceError,
    TarArchive,
    ZipArchive,
    suffix_of,
)
from dav2.data.raw.folders import Local, Remote, bounded, missing
from dav2.data.raw.members import NOISE, clean_name
from dav2.data.raw.split_zip import SplitZip, part_name
from dav2.data.raw.streams import ranged_file
from dav2.failures import reason

INSIDE = "!/"
MAX_BYTES = 512 * 2**20
"""Largest file that :meth:`Tree.read` takes into memory."""


class _Files(Protocol):
    refused: list[tuple[str, str]]
    left_out: Counter[str]

    def names(self) -> Iterator[str]: ...
    def open(self, name: str) -> BinaryIO: ...
    def read(self, name: str, limit: int) -> bytes: ...
    def range(self, name: str, offset: int, size: int) -> bytes: ...
    def stamp(self, name: str) -> tuple[int, str]: ...


class Tree:
    """See the module's text.

    Raises:
        SourceError: nothing lies at ``path``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        root, self._only = self.path, ""
        if suffix_of(self.path):
            root, _, self._only = self.path.rpartition("/")
        self._files: _Files = Remote(root) if "://" in root else Local(Path(root or "."))
        if self._only:
            try:
                self._files.stamp(self._only)
            except OSError:
                raise missing(self.path) from None
        self._archives: dict[str, TarArchive | ZipArchive] = {}
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archives": {}}

    def names(self) -> list[str]:
        """All files, sorted; archives are looked into."""
        if self._only:
            return sorted(self._archive(self._only).contents.members)
        found: list[str] = []
        for name in self._files.names():
            if not suffix_of(name):
                found.append(name)
                continue
            try:
                found += [f"{name}{INSIDE}{member}" for member in self._archive(name).contents.members]
            except OSError as error:
                # One archive that cannot be read must not cost the others; a failing store fails them all by itself.
                if "://" in self.path and not isinstance(error, FileNotFoundError | PermissionError):
                    raise
                self._files.refused.append((name, f"cannot be read: {reason(error)}"))
        if not found and not self._archives and not self._files.refused:
            raise missing(self.path)
        return sorted(found)

    def refused(self) -> list[tuple[str, str]]:
        """(name, reason) of what the last :meth:`names` came across but cannot be a file of a data set."""
        archives = (
            (f"{archive}{INSIDE}{name}" if not self._only else name, reason)
            for archive, opened in self._archives.items()
            for name, reason in opened.contents.refused
        )
        return sorted([*self._files.refused, *archives])

    def left_out(self) -> Counter[str]:
        """How much of each kind the last :meth:`names` left out because it is nobody's data."""
        in_archives = sum(opened.contents.noise for opened in self._archives.values())
        return self._files.left_out + Counter({NOISE: in_archives})

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes of one file.

        Raises:
            FrameError: it is not there, cannot be read, or is larger than ``limit``.
        """
        with self._told(name):
            archive, member = self._split(name)
            if archive:
                opened = self._archive(archive)
                bounded(name, opened.contents.members[member][1], limit)
                return opened.read(member)
            return self._files.read(member, limit)

    def open(self, name: str) -> BinaryIO:
        """A seekable stream, for files too large to be read whole.

        Raises:
            FrameError: it is not there or cannot be opened.
        """
        with self._told(name):
            archive, member = self._split(name)
            return self._archive(archive).open(member) if archive else self._files.open(member)

    def local(self, name: str) -> Path:
        """The file's path, for libraries that map it into memory themselves.

        Raises:
            SourceError: the file lies in an archive or in a bucket.
        """
        archive, member = self._split(name)
        if archive or not isinstance(self._files, Local):
            raise SourceError(f"{self.path}: {name} must be an unpacked local file; copy it to a local folder first")
        return self._files.root / member

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What a file's reading raises, as an error that says which file of which data set it was."""
        try:
            yield
        except (FileNotFoundError, KeyError) as error:
            raise FrameError(f"{self.path}: {name} is listed but not there") from error
        except (OSError, *DAMAGE) as error:
            raise FrameError(f"{self.path}: {name} cannot be read: {error}") from error

    def _split(self, name: str) -> tuple[str, str]:
        if self._only:
            return self._only, name
        head, inside, member = name.partition(INSIDE)
        return (head, member) if inside and suffix_of(head) else ("", _within(name))

    def _archive(self, name: str) -> TarArchive | ZipArchive:
        if self._pid != os.getpid():
            self._archives, self._pid = {}, os.getpid()
        if name not in self._archives:
            label = f"{self.path.rstrip('/')}/{name}" if not self._only else self.path
            size, changed = self._files.stamp(name)

            def open_file() -> BinaryIO:
                return self._files.open(name)

            def read_range(offset: int, size: int) -> bytes:
                return self._files.range(name, offset, size)

            if suffix_of(name) == ".zip":
                parts = self._parts(name)
                whole = size + sum(each for _, each in parts)
                self._archives[name] = ZipArchive(lambda: self._open_zip(name, size, parts), whole)
            else:
                self._archives[name] = TarArchive(open_file, read_range, label, size, changed)
        return self._archives[name]

    def _parts(self, name: str) -> list[tuple[str, int]]:
        """(name, bytes) of the parts of a split zip that lie beside its last."""
        parts: list[tuple[str, int]] = []
        with contextlib.suppress(FileNotFoundError):
            while True:
                part = part_name(name, len(parts) + 1)
                parts.append((part, self._files.stamp(part)[0]))
        return parts

    def _open_zip(self, name: str, size: int, parts: list[tuple[str, int]]) -> zipfile.ZipFile:
        if not parts:
            archive = zipfile.ZipFile(self._files.open(name))
            if any(info.volume for info in archive.infolist()):
                raise zipfile.BadZipFile(f"{part_name(name, 1)} and the parts after it are not there")
            return archive
        return SplitZip([*parts, (name, size)], self._files.range).open(ranged_file)


def _within(name: str) -> str:
    """A relative name, cleaned; list files come from outside and may hold anything."""
    try:
        return clean_name(name)
    except ValueError as error:
        raise FrameError(f"{name}: {error}") from error
