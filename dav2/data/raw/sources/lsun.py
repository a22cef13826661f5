"""LSUN scenes: one LMDB per category (``bedroom_train_lmdb/{data,lock}.mdb``), hash → encoded image.

Values are JPEG by the read-me and WebP in most copies, so the format is told by the bytes. Environments are opened
per process and only for reading; a file cut short would crash the process that maps it, so its size is checked first.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.images import decode
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item, Options

if TYPE_CHECKING:
    import lmdb

_FILE = re.compile(r"(?:.*/)?(?P<category>[^/]+)_train_lmdb/data\.mdb")


class LSUN(Reader[Options]):
    """Photographs by kind of scene, without depth."""

    group = "unlabelled"
    rules_name = "lsun"

    def items(self, names: list[str]) -> list[Item]:
        """Every entry of every database; one that cannot be opened is told as spoiled."""
        import lmdb

        items = []
        for match in map(_FILE.fullmatch, names):
            if not match:
                continue
            category, paths = match["category"], (match[0],)
            try:
                with self._environment(match[0]).begin() as transaction:
                    for key in transaction.cursor().iternext(keys=True, values=False):
                        frame = make_key(self.name, category, key.decode("ascii", "replace"))
                        items.append(Item(frame, category, "train", paths, {"key": key.decode("latin-1")}))
            except (FrameError, SourceError, lmdb.Error) as error:
                self._spoiled.append((match[0], str(error)))
        return items

    def load(self, item: Item) -> Frame:
        """The photograph of one entry.

        Raises:
            FrameError: the database cannot be read, or lacks the entry.
        """
        import lmdb

        name = f"{item.paths[0]}: {item.extra['key']}"
        try:
            with self._environment(item.paths[0]).begin() as transaction:
                data = transaction.get(item.extra["key"].encode("latin-1"))
        except lmdb.Error as error:
            raise FrameError(f"{name} cannot be read: {error}") from error
        if data is None:
            raise FrameError(f"{name} is listed but not there")
        image = decode(bytes(data), name, max_pixels=self.options.max_pixels)
        return Frame(item.key, image.rgb, jpeg=image.upright_jpeg)

    def _environment(self, name: str) -> lmdb.Environment:
        file = self.tree.local(name)
        if not _opened:
            _close_before_forks()
        if file not in _opened:
            _opened[file] = _open(file)
        return _opened[file]


# One environment per file and process, whoever asks: LMDB refuses to open a file twice.
_opened: dict[Path, lmdb.Environment] = {}


@cache
def _close_before_forks() -> None:
    """An environment must not live on in a forked process; parent and child each open their own when they next read."""

    def close() -> None:
        for environment in _opened.values():
            environment.close()
        _opened.clear()

    os.register_at_fork(before=close)


def _open(file: Path) -> lmdb.Environment:
    import lmdb

    try:
        environment = lmdb.open(str(file.parent), readonly=True, lock=False, readahead=False)
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except lmdb.Error as error:
        raise SourceError(f"{file}: not a readable LMDB: {error}") from error
    if file.stat().st_size < needed:
        environment.close()
        raise SourceError(f"{file}: cut short: {file.stat().st_size} of {needed} bytes; fetch it again")
    return environment
