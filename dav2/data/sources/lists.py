"""List files: which image goes with which depth map, one pair a line, as benchmarks publish them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from dav2.data.archives import SourceError
from dav2.data.tree import Tree


class Line(NamedTuple):
    """``image depth [more]``; ``depth`` is ``None`` where the list says so."""

    image: str
    depth: str | None
    more: tuple[str, ...]


def read_lines(tree: Tree, name: str, names: list[str]) -> list[list[str]]:
    """The white-space separated fields of a list file in the data set, or of a local file.

    Raises:
        SourceError: there is no such file.
    """
    if name in names:
        data = tree.read(name)
    elif Path(name).is_file():
        data = Path(name).read_bytes()
    else:
        raise SourceError(f"{tree.path}: no list file '{name}', neither in the data set nor as a local file")
    return [line.split() for line in data.decode("utf-8").splitlines() if line.strip() and not line.startswith("#")]


def read_pairs(tree: Tree, name: str, names: list[str]) -> list[Line]:
    """Lines of a list in the convention of BTS, ZoeDepth and Marigold."""
    lines = []
    for fields in read_lines(tree, name, names):
        depth = fields[1] if len(fields) > 1 and fields[1] != "None" else None
        lines.append(Line(fields[0], depth, tuple(fields[2:])))
    return lines


class Locator:
    """Finds files whose names a list gives relative to some folder further down, or with another image suffix."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._there = set(names)
        self._tails: dict[int, dict[str, str]] = {}

    def __call__(self, wanted: str) -> str | None:
        """The name in the data set, or ``None``."""
        wanted = wanted.strip("/").removeprefix("./")
        return next((found for name in _spellings(wanted) if (found := self._find(name))), None)

    def _find(self, name: str) -> str | None:
        if name in self._there:
            return name
        parts = name.count("/") + 1
        if parts not in self._tails:
            self._tails[parts] = {"/".join(n.replace("!/", "/").split("/")[-parts:]): n for n in self._names}
        return self._tails[parts].get(name)


def _spellings(name: str) -> list[str]:
    stem, dot, suffix = name.rpartition(".")
    other = {"png": "jpg", "jpg": "png"}.get(suffix)
    return [name, f"{stem}{dot}{other}"] if other else [name]
