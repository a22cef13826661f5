"""Everything below a local folder: files, and what there is that cannot be read as one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dav2.files import special

LINK = "link to a folder that is read already"


class Found(NamedTuple):
    """Something below a folder.

    Attributes:
        name: relative to the folder, with ``/``.
        problem: why it cannot be read; empty for a file that can.
        passed_over: of what kind it is, where it need not be read; else empty.
    """

    name: str
    problem: str = ""
    passed_over: str = ""


def walk(root: Path) -> Iterator[Found]:
    """Files below ``root``, in sorted order folder by folder; nothing is passed over in silence.

    Links are followed, unlike in archives: DVC checks data out as links, and people link large folders in. A folder
    that was reached before by another way, as by a link to one above it, is named and not entered again.
    """
    seen: dict[tuple[int, int], str] = {}
    problems: list[Found] = []

    def relative(path: str | Path) -> str:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        return "" if name == "." else name

    def unreadable(error: OSError) -> None:
        name = relative(error.filename) if error.filename else ""
        problems.append(Found(name or ".", f"folder cannot be read: {error.strerror or error}"))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        yield from problems
        problems.clear()
        name = relative(folder)
        status = Path(folder).stat()
        place = (status.st_dev, status.st_ino)
        if place in seen:
            folders.clear()
            yield Found(name, passed_over=LINK)
            continue
        seen[place] = name
        folders.sort()
        prefix = f"{name}/" if name else ""
        for file in sorted(files):
            yield Found(prefix + file, _problem(os.path.join(folder, file)))  # noqa: PTH118
    yield from problems


def _problem(path: str) -> str:
    try:
        kind = special(os.stat(path).st_mode)  # noqa: PTH116
    except FileNotFoundError:
        return "is a link to something that is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return f"is {kind}, not a file" if kind else ""
