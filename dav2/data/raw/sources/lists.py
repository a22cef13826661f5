"""List files: which frames of a data set belong to a benchmark or a split, one a line, as they are published."""

from __future__ import annotations

from pathlib import Path

from dav2.data.raw.archives import SourceError
from dav2.data.raw.tree import MAX_BYTES, Tree
from dav2.data.text import decode_text
from dav2.files import open_regular, read_bounded


def read_lines(tree: Tree, name: str, names: list[str]) -> list[list[str]]:
    """The white-space separated fields of a list file in the data set, or of a local file.

    Raises:
        SourceError: there is no such file.
    """
    if name in names:
        data = tree.read(name)
    elif _is_there(name):
        with open_regular(Path(name)) as file:
            data = read_bounded(file, MAX_BYTES, name)
    else:
        raise SourceError(f"{tree.path}: no list file '{name}', neither in the data set nor as a local file")
    lines = [line.split() for line in decode_text(data, name).splitlines()]
    found = [fields for fields in lines if fields and not fields[0].startswith("#")]
    if not found:
        raise SourceError(f"{tree.path}: the list '{name}' names nothing")
    return found


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:
        # A name longer than any file's.
        return False


class Locator:
    """Finds files whose names a list gives relative to another folder, as an absolute path on its author's machine, or
    with another image suffix. What could be two files is not found.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._there = set(names)
        self._tails: dict[int, dict[str, str | None]] = {}

    def __call__(self, wanted: str) -> str | None:
        """The name in the data set, or ``None``."""
        relative = wanted.strip("/").removeprefix("./")
        for name in _spellings(relative):
            found = self._ends_with(name)
            # An absolute path is shortened from the left, never to the bare file name, which often repeats.
            while not found and wanted.startswith("/") and name.count("/") > 1:
                name = name.partition("/")[2]
                found = self._ends_with(name)
            if found:
                return found
        return None

    def _ends_with(self, tail: str) -> str | None:
        if tail in self._there:
            return tail
        parts = tail.count("/") + 1
        if parts not in self._tails:
            table: dict[str, str | None] = {}
            for name in self._names:
                key = "/".join(name.replace("!/", "/").split("/")[-parts:])
                table[key] = None if key in table else name
            self._tails[parts] = table
        return self._tails[parts].get(tail)


def _spellings(name: str) -> list[str]:
    stem, dot, suffix = name.rpartition(".")
    other = {"png": "jpg", "jpg": "png"}.get(suffix)
    return [name, f"{stem}{dot}{other}"] if other else [name]
