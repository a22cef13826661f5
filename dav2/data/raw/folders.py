"""Where a data set's files lie: a local folder, or a prefix of an object store."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from dav2.data import storage
from dav2.data.frame import FrameError
from dav2.data.raw.archives import SourceError
from dav2.data.raw.members import NOISE, clean_name, is_noise, printable
from dav2.data.raw.streams import ranged_file
from dav2.files import open_regular, read_bounded
from dav2.walk import walk


def missing(path: str) -> SourceError:
    """The error for data that is not there."""
    return SourceError(
        f"{path}: no data there; run 'dvc pull data.dvc', or put the data set there in its public layout"
    )


def _unnameable(name: str) -> str | None:
    """Why a file of a folder or bucket cannot be had under its name: it would be read, and named, as another."""
    try:
        return None if clean_name(name) == name else "the name holds empty or '.' parts, or a backslash; rename it"
    except ValueError as error:
        return str(error)


def bounded(name: str, size: int, limit: int) -> None:
    """Refuse a file of more than ``limit`` bytes.

    Raises:
        FrameError: the message names the file."""
    if size > limit:
        raise FrameError(f"{name}: {size} bytes, more than the {limit} that one file may have")


class Local:
    """A data set in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise missing(str(root))
        self.root = root
        self.refused: list[tuple[str, str]] = []
        self.left_out = Counter[str]()

    def names(self) -> Iterator[str]:
        """Paths of its files below the root, in no order; what cannot be had or is left out is counted beside."""
        self.refused, self.left_out = [], Counter()
        for found in walk(self.root):
            if printable(found.name) != found.name:
                self.refused.append((printable(found.name), "name is not UTF-8; rename it"))
            elif found.problem:
                self.refused.append((found.name, found.problem))
            elif found.passed_over:
                self.left_out[found.passed_over] += 1
            elif is_noise(found.name):
                self.left_out[NOISE] += 1
            elif why := _unnameable(found.name):
                self.refused.append((found.name, why))
            else:
                yield found.name

    def open(self, name: str) -> BinaryIO:
        """A file to read from any place; regular files only."""
        return open_regular(self.root / name)

    def read(self, name: str, limit: int) -> bytes:
        """The whole file, of at most ``limit`` bytes."""
        bounded(name, self.stamp(name)[0], limit)
        with self.open(name) as file:
            return read_bounded(file, limit, name)

    def range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on."""
        with self.open(name) as file:
            file.seek(offset)
            return file.read(size)

    def stamp(self, name: str) -> tuple[int, str]:
        """Size and time of a file, so that a changed one is read again."""
        status = (self.root / name).stat()
        return status.st_size, str(status.st_mtime_ns)


class Remote:
    """A prefix of an object store; a failed request is repeated by ``storage.retried``."""

    def __init__(self, url: str) -> None:
        self._root = url.rstrip("/")
        self.refused: list[tuple[str, str]] = []
        self.left_out = Counter[str]()

    def names(self) -> Iterator[str]:
        """Keys below the prefix, in no order."""
        self.refused, self.left_out = [], Counter()
        system = storage.filesystem(self._root)
        root = system._strip_protocol(self._root)
        for path in storage.retried(lambda: system.find(root), f"listing {self._root}"):
            name = path[len(root) :].removeprefix("/")
            if not name:
                continue
            if why := _unnameable(name):
                self.refused.append((printable(name), why))
            elif is_noise(name):
                self.left_out[NOISE] += 1
            else:
                yield name

    def open(self, name: str) -> BinaryIO:
        """An object to read from any place, by ranged requests."""
        return ranged_file(partial(self.range, name), 0, self.stamp(name)[0])

    def read(self, name: str, limit: int) -> bytes:
        """The whole object, of at most ``limit`` bytes."""
        data = self.range(name, 0, limit + 1)
        if len(data) > limit:
            bounded(name, self.stamp(name)[0], limit)
        return data

    def range(self, name: str, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on."""
        path = self._path(name)

        def get() -> bytes:
            try:
                return cast(bytes, storage.filesystem(path).cat_file(path, start=offset, end=offset + size))
            except OSError as error:
                # No byte of an empty object can be asked for.
                if error.errno == errno.EINVAL and self.stamp(name)[0] == 0:
                    return b""
                raise

        return storage.retried(get, f"reading {path}") if size else b""

    def stamp(self, name: str) -> tuple[int, str]:
        """Size and time of an object."""
        path = self._path(name)
        info = storage.retried(lambda: storage.filesystem(path).info(path), f"looking up {path}")
        return int(info["size"]), str(info.get("ETag") or info.get("LastModified") or info.get("mtime") or "")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
