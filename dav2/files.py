"""Files: written whole or not at all, and read only where they are plain files that end."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".part-"
"""Prefix of unfinished files; whoever finds one where nothing is being written may delete it."""


def temporary_beside(path: Path) -> Path:
    """An unused temporary name in the folder of ``path``, with its suffix."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}{path.suffix}")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to; on success it is synced and takes the name ``path``.

    On an error the temporary file is removed and whatever was at ``path`` stays. Parent folders are made.

    Raises:
        IsADirectoryError: a folder has that name; told before anything is written.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def output_folder(path: Path) -> Iterator[None]:
    """Make a folder, with its parents, to write to; of those that were made, the ones still empty at the end go again.

    Raises:
        OSError: it cannot be made; the error names what is in the way.
    """
    ways = (path, *path.parents)
    made = [each for each in ways if not os.path.lexists(each)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        blocking = next(each for each in ways if os.path.lexists(each) and not each.is_dir())
        raise OSError(errno.ENOTDIR, "is no folder, and one is to be written to there", str(blocking)) from None
    except FileNotFoundError:  # Some file systems, such as /proc, say so of what they will not make.
        raise OSError(errno.EACCES, "no folder can be made there", str(path)) from None
    try:
        yield
    finally:
        for each in made:
            try:
                each.rmdir()
            except OSError:
                break


def write_whole(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path`` through :func:`written_whole`; text is UTF-8."""
    with written_whole(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def sync(path: Path) -> None:
    """Make the bytes of a file, or the renames inside a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers left in a folder and below it; nobody may be writing there."""
    for path in folder.rglob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def special(mode: int) -> str | None:
    """What a file is by its ``st_mode`` if it is no plain file (a named pipe, a device …), or ``None``."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no plain file")


def open_regular(path: Path | str) -> BinaryIO:
    """A plain file, for reading. Links are followed; pipes, sockets, devices and folders are refused, not waited for.

    Raises:
        OSError: it is missing, cannot be read, or is no plain file.
    """
    kind = special(os.stat(path).st_mode)  # noqa: PTH116
    if kind:
        raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
    # Without waiting, and looked at again when open: another process may have put a pipe in its place.
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    if kind := special(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
    return file


def read_bounded(file: BinaryIO, limit: int, name: str) -> bytes:
    """All of a file, which may have at most ``limit`` bytes whatever its size is said to be.

    Raises:
        ValueError: there are more.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{name}: more than the {limit} bytes that one file may have")
    return data
