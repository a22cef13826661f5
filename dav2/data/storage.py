"""Paths that may be local or ``s3://``: reading, ranged reading, and writes that are whole or absent.

Local paths never touch fsspec. A local file is written under a temporary name in the same folder, synced and renamed.
An object store has no rename: one object appears when its upload is complete, and what makes a *group* of objects
valid is a marker written last with :func:`create_once`. Listings are never cached, because other writers exist.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, TypeVar

from tenacity import RetryError, retry, retry_if_exception, stop_after_attempt, wait_exponential

from dav2.files import TEMPORARY, sync, temporary_beside, written_whole

if TYPE_CHECKING:
    import fsspec

Location = str | Path
Result = TypeVar("Result")

ATTEMPTS = 5
"""Tries of one remote operation; s3fs itself repeats only what the server names as throttling."""


class StorageError(OSError):
    """A path that cannot be read or written; the message names it."""


class StoreAway(StorageError):
    """A store that failed whatever it was asked, each time; what it holds is neither absent nor damaged."""


def outage(error: BaseException | None) -> StoreAway | None:
    """The failing store that an error comes from, whatever the error was turned into on its way; ``None`` if none."""
    while error is not None and not isinstance(error, StoreAway):
        error = error.__cause__ or error.__context__
    return error


def is_remote(path: Location) -> bool:
    """Whether ``path`` is an object-store address such as ``s3://bucket/key``."""
    return "://" in str(path)


def join(directory: Location, name: str) -> str:
    """``directory/name``; refuses names that would leave the directory."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise StorageError(f"'{name}' would lead out of {directory}")
    return f"{str(directory).rstrip('/')}/{name}"


def filesystem(path: Location) -> fsspec.AbstractFileSystem:
    """fsspec file system of a remote path. Made per process and thread by fsspec, so never carry it over a fork."""
    import fsspec

    options = {"use_listings_cache": False} if str(path).startswith("s3://") else {}
    return fsspec.core.url_to_fs(str(path), **options)[0]


def retried(action: Callable[[], Result], what: str) -> Result:
    """Run a remote operation, again after 0.1, 0.2, 0.4 … s when the server fails it.

    What will not change by asking again (absent, present, forbidden, a full local disk) is raised at once.
    """
    again = retry(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(0.1, min=0.1),
        retry_error_cls=_TriedError,
    )
    try:
        return again(action)()
    except _TriedError as tried:
        error = tried.last_attempt.exception()
        raise StoreAway(f"{what} failed {ATTEMPTS} times: {error}") from error


class _TriedError(RetryError):
    """Ours alone, so that no error of the action itself is taken for it."""


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    return isinstance(error, Exception) and not (isinstance(error, OSError) and error.errno == errno.ENOSPC)


def exists(path: Location) -> bool:
    """Whether the file or object is there."""
    if not is_remote(path):
        return Path(path).exists()
    return retried(lambda: bool(filesystem(path).exists(str(path))), f"looking up {path}")


def size(path: Location) -> int:
    """Bytes of a file or object; ``FileNotFoundError`` when it is absent."""
    if not is_remote(path):
        return Path(path).stat().st_size
    return retried(lambda: int(filesystem(path).size(str(path))), f"looking up {path}")


def names(directory: Location) -> list[str]:
    """Sorted names of the finished files directly in ``directory``; empty when it does not exist."""
    if not is_remote(directory):
        folder = Path(directory)
        found = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
    else:
        try:
            entries = retried(lambda: filesystem(directory).ls(str(directory), detail=True), f"listing {directory}")
        except FileNotFoundError:
            return []
        found = [PurePosixPath(e["name"]).name for e in entries if e["type"] == "file"]
    return sorted(name for name in found if not name.startswith(TEMPORARY))


def read(path: Location) -> bytes:
    """The whole file or object."""
    if not is_remote(path):
        return Path(path).read_bytes()
    data: bytes = retried(lambda: filesystem(path).cat_file(str(path)), f"reading {path}")
    return data


@contextlib.contextmanager
def atomic_file(path: Location) -> Iterator[IO[bytes]]:
    """A binary file to write to; it takes its name only when the block ends without an error.

    A remote path is spooled to local disk first and uploaded whole.
    """
    if not is_remote(path):
        with written_whole(Path(path)) as temporary, temporary.open("w+b") as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(prefix=TEMPORARY) as file:
        yield file
        file.flush()
        retried(lambda: filesystem(path).put_file(file.name, str(path)), f"uploading {path}")


def write(path: Location, data: bytes) -> None:
    """Write a whole small file or object, replacing what was there."""
    with atomic_file(path) as file:
        file.write(data)


def create_once(path: Location, data: bytes) -> bool:
    """Write ``data`` only if nothing has this name yet; ``False`` when something has. Of many writers one wins.

    Locally by hard link; on S3 by a conditional put (``If-None-Match: *``).
    """
    if is_remote(path):
        try:
            retried(lambda: _create(path, data), f"creating {path}")
        except FileExistsError:
            return False
        return True
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, target)
        sync(target.parent)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create(path: Location, data: bytes) -> None:
    """Conditional put; ``FileExistsError`` where the name is taken.

    s3fs knows how AWS says so; SeaweedFS and others give the code without the words that it looks for.
    """
    try:
        filesystem(path).pipe_file(str(path), data, mode="create")
    except OSError as error:
        said = getattr(error.__cause__, "response", {}).get("Error", {})
        if said.get("Code") == "PreconditionFailed":
            raise FileExistsError(str(path)) from error
        raise


def remove(path: Location) -> None:
    """Delete a file or object if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        retried(lambda: filesystem(path).rm_file(str(path)), f"deleting {path}")


def remove_tree(directory: Location) -> None:
    """Delete a folder, or every object below a prefix, if it is there."""
    if not is_remote(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        retried(lambda: filesystem(directory).rm(str(directory), recursive=True), f"deleting {directory}")
