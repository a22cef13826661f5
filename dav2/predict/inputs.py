"""What the user names on the command line → the files to predict, each with a name for its output."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

IMAGES = frozenset(
    ".jpg .jpeg .png .webp .bmp .tif .tiff .gif .ppm .pgm .jp2 .avif".split()  # noqa: SIM905
)
VIDEOS = frozenset(".mp4 .mov .mkv .avi .webm .m4v .mpg .mpeg".split())  # noqa: SIM905
LIST = ".txt"


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
        return PurePosixPath(self.path).suffix.lower() in VIDEOS

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """The file, for reading.

        Raises:
            OSError: it is missing, a folder, or cannot be read.
        """
        if "://" in self.path:
            import fsspec

            return fsspec.open(self.path, "rb")
        return Path(self.path).open("rb")


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be predicted, and why."""

    path: str
    reason: str


def expand(patterns: Iterable[str]) -> tuple[list[Input], list[Failure]]:
    """Files named by paths, folders (searched through), globs, ``.txt`` lists of those, and URLs.

    Returns:
        the files in a fixed order, each with an output name of its own, and what was named but is not there.
    """
    found: list[tuple[str, PurePosixPath]] = []
    failures: list[Failure] = []
    for pattern in patterns:
        if pattern.lower().endswith(LIST) and Path(pattern).is_file():
            lines = Path(pattern).read_text(encoding="utf-8").splitlines()
            named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        else:
            named = [pattern]
        for one in named:
            files = _remote(one) if "://" in one else _local(one)
            if not files:
                failures.append(Failure(one, _absence(one)))
            found += files
    return _named(found), failures


def _local(pattern: str) -> list[tuple[str, PurePosixPath]]:
    path = Path(pattern)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _known(file.name) and file.is_file())
        return [(str(file), PurePosixPath(file.relative_to(path).as_posix())) for file in files]
    if path.is_file():
        return [(pattern, PurePosixPath(path.name))]
    if any(character in pattern for character in "*?["):
        root = Path(path.anchor) if path.anchor else Path()
        relative = str(path.relative_to(path.anchor)) if path.anchor else pattern
        return [(str(file), PurePosixPath(file.name)) for file in sorted(root.glob(relative)) if file.is_file()]
    return []


def _remote(url: str) -> list[tuple[str, PurePosixPath]]:
    import fsspec

    scheme = url.split("://", 1)[0]
    system, path = fsspec.core.url_to_fs(url)
    if any(character in path for character in "*?["):
        files = [(file, PurePosixPath(file).name) for file in sorted(system.glob(path))]
    elif system.isdir(path):
        files = [
            (file, file.removeprefix(path.rstrip("/") + "/")) for file in sorted(system.find(path)) if _known(file)
        ]
    elif system.exists(path):
        files = [(path, PurePosixPath(path).name)]
    else:
        files = []
    return [(f"{scheme}://{file}", PurePosixPath(name)) for file, name in files]


def _known(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGES | VIDEOS


def _absence(pattern: str) -> str:
    if "://" not in pattern and Path(pattern).is_dir():
        return "the folder holds no image or video"
    return "no such file, folder or match"


def _named(found: list[tuple[str, PurePosixPath]]) -> list[Input]:
    """Drop suffixes from names; where two files would then share one, the suffix stays as part of the name."""
    inputs: dict[str, Input] = {}
    for path, relative in found:
        name = str(relative.with_suffix(""))
        if name in inputs:
            name = f"{name}_{relative.suffix[1:]}"
        number = 2
        while name in inputs:
            name, number = f"{relative.with_suffix('')}_{number}", number + 1
        inputs[name] = Input(path, name)
    return list(inputs.values())
