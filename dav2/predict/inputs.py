"""What there is to predict: one file each, with a name for its output that nobody else has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import IO, cast

from dav2.data.images import SUFFIXES
from dav2.data.raw.members import printable
from dav2.files import open_regular

VIDEOS = frozenset(".mp4 .mov .mkv .avi .webm .m4v .mpg .mpeg".split())  # noqa: SIM905
KNOWN = VIDEOS | frozenset(SUFFIXES)
"""Suffixes, in lower case, of what is taken from a folder."""


@dataclass(frozen=True, slots=True)
class Input:
    """One file to predict.

    Attributes:
        path: local path or ``scheme://`` URL.
        name: output path without suffix, relative to the output folder.
    """

    path: str
    name: str

    @property
    def video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return suffix(self.path) in VIDEOS

    @property
    def place(self) -> str:
        """Which file it is, whatever it is called by."""
        return self.path if "://" in self.path else os.path.realpath(self.path)

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """The file, for reading.

        Raises:
            OSError: it is missing, no plain file, or cannot be read.
        """
        if "://" in self.path:
            import fsspec

            return cast(AbstractContextManager[IO[bytes]], fsspec.open(self.path, "rb"))
        return closing(open_regular(Path(self.path)))


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be predicted, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        # One line, whatever stands in a file's name.
        path = "".join(sign if sign.isprintable() else "\ufffd" for sign in printable(self.path)) or "''"
        return self.reason if self.reason.startswith(f"{path}: ") else f"{path}: {self.reason}"


def suffix(path: str) -> str:
    """Suffix of a path or URL in lower case, with its dot."""
    plain = path.partition("?")[0].partition("#")[0] if path.startswith(("http://", "https://")) else path
    return PurePosixPath(plain).suffix.lower()


def named(found: Iterable[tuple[str, str]]) -> list[Input]:
    """Give each file a name of its own.

    A name is the relative path without suffix; where two would share one, whatever the case of their letters, the
    suffix stays as part of the name. A video's frames get a folder of its name, so that must hold nothing else.

    Args:
        found: (path, relative name with suffix), cleaned.
    """
    files = [(path, PurePosixPath(relative)) for path, relative in found]
    folders = {str(parent).casefold() for _, relative in files for parent in relative.parents}
    inputs: list[Input] = []
    taken: set[str] = set()
    for path, relative in files:
        stem, ending = str(relative.with_suffix("")), relative.suffix[1:]
        blocked = taken | folders if suffix(path) in VIDEOS else taken
        candidates = chain([stem], [f"{stem}_{ending}"] if ending else [], (f"{stem}_{n}" for n in count(2)))
        name = next(candidate for candidate in candidates if candidate.casefold() not in blocked)
        taken.add(name.casefold())
        inputs.append(Input(path, name))
    return inputs
