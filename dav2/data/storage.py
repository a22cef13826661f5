"""Paths that may be local or ``s3://``: reading, ranged reading, and writes that are whole or absent.

Local paths never touch fsspec. A local file is written under a temporary name in the same folder, synced and renamed.
An object store has no rename: one object appears when its upload is complete, and what makes a *group* of objects
valid is a marker written last with :func:`create_once`. Listings are never cached, because other writers exist.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

Location = str | Path
Result = TypeVar("Result")

ATTEMPTS = 5
"""Tries of one remote operation; s3fs itself repeats only what the server names as throttling."""
GAP = 65536
"""Bytes between two ranges of a remote file up to which fetching them too is cheaper than another request."""
_PIECE = 2**20
TEMPORARY = ".part-"
"""Prefix of unfinished local files; a file with it may be deleted by whoever finds it."""


class StorageError(OSError):
    """A path that cannot be read or written; the message names it."""


def is_remote(path: Location) -> bool:
    """Whether ``path`` is an object-store address such as ``s3://bucket/key``."""
    return "://" in str(path)


def join(directory: Location, name: str) -> str:
    """``directory/name``; refuses names that would leave the directory."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise StorageError(f"'{name}' would lead out of {directory}")
    return f"{str(directory).rstrip('/')}/{name}"


def filesystem(path: Location) -> Any:
    """fsspec file system of a remote path. Made per process and thread by fsspec, so never carry it over a fork."""
    import fsspec

    options = {"use_listings_cache": False} if str(path).startswith("s3://") else {}
    return fsspec.core.url_to_fs(str(path), **options)[0]


def retried(action: Callable[[], Result], what: str) -> Result:
    """Run a remote operation, again after 0.1, 0.2, 0.4 … s when the server fails it.

    What will not change by asking again (absent, present, forbidden, a full local disk) is raised at once.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            if attempt + 1 == ATTEMPTS:
                raise StorageError(f"{what} failed {ATTEMPTS} times: {error}") from error
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


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


def file_hash(path: Location) -> str:
    """sha256 of a local file, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ranges(requests: Sequence[tuple[str, int, int]]) -> list[bytes]:
    """Bytes of each (path, offset, size), in the order asked.

    Remote ones are fetched at the same time, neighbours of one file by one request.

    Raises:
        StorageError: fewer bytes came back than asked for, so the file is cut off.
    """
    remote = [number for number, request in enumerate(requests) if is_remote(request[0])]
    near = [number for number, request in enumerate(requests) if not is_remote(request[0])]
    blocks = [b""] * len(requests)
    for numbers, fetch in ((near, _read_local_ranges), (remote, _read_remote_ranges)):
        found = fetch([requests[number] for number in numbers]) if numbers else []
        for number, block in zip(numbers, found, strict=True):
            blocks[number] = block
    for block, (path, offset, length) in zip(blocks, requests, strict=True):
        if len(block) != length:
            raise StorageError(
                f"{path}: {len(block)} of {length} bytes at {offset}; the file is cut off, make it again"
            )
    return blocks


def _read_remote_ranges(requests: Sequence[tuple[str, int, int]]) -> list[bytes]:
    spans: list[tuple[str, int, int]] = []
    span_of: dict[int, int] = {}
    for index in sorted(range(len(requests)), key=lambda i: requests[i]):
        path, offset, size = requests[index]
        if spans and spans[-1][0] == path and offset - spans[-1][2] <= GAP:
            spans[-1] = (path, spans[-1][1], max(spans[-1][2], offset + size))
        else:
            spans.append((path, offset, offset + size))
        span_of[index] = len(spans) - 1
    paths, starts, ends = (list(column) for column in zip(*spans, strict=True))
    try:
        fetched = retried(
            lambda: filesystem(paths[0]).cat_ranges(paths, starts, ends, on_error="raise"),
            f"reading {len(paths)} ranges of {paths[0]} …",
        )
    except FileNotFoundError as error:
        gone = next((path for path in paths if path.removeprefix("s3://") in str(error)), paths[0])
        raise FileNotFoundError(errno.ENOENT, "no such object; ingest this source again", gone) from error
    blocks = []
    for index, (_, offset, size) in enumerate(requests):
        span, first = fetched[span_of[index]], offset - starts[span_of[index]]
        whole = first == 0 and size == len(span)
        blocks.append(span if whole else bytes(memoryview(span)[first : first + size]))
    return blocks


def fetch_range(path: str, start: int, end: int, file: IO[bytes]) -> None:
    """Write bytes ``start`` … ``end`` of a remote file into a local one, a piece at a time.

    A long range costs a third of what reading it at once does, most of which is fresh memory.

    Raises:
        StorageError: fewer bytes came than asked for, or the server keeps failing.
    """

    def fetch() -> None:
        file.seek(0)
        file.truncate()
        system = filesystem(path)
        if path.startswith("s3://"):
            _stream_s3(system, path, start, end, file)
        else:
            file.write(system.cat_file(path, start=start, end=end))
        if file.tell() != end - start:
            raise StorageError(f"{path}: {file.tell()} of {end - start} bytes at {start}; the file is cut off")

    retried(fetch, f"reading {path}")


def _stream_s3(system: Any, path: str, start: int, end: int, file: IO[bytes]) -> None:
    from fsspec.asyn import sync

    async def stream() -> None:
        bucket, key, _ = system.split_path(path)
        reply = await system._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")
        async with reply["Body"] as body:
            while piece := await body.read(_PIECE):
                file.write(piece)

    sync(system.loop, stream)


def _read_local_ranges(requests: Sequence[tuple[str, int, int]]) -> list[bytes]:
    blocks = []
    with contextlib.ExitStack() as stack:
        handles: dict[str, int] = {}
        for path, offset, length in requests:
            if path not in handles:
                handles[path] = os.open(path, os.O_RDONLY)
                stack.callback(os.close, handles[path])
            blocks.append(os.pread(handles[path], length, offset))
    return blocks


def sync_directory(directory: Path) -> None:
    """Make renames inside a local folder survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Location) -> Iterator[IO[bytes]]:
    """A binary file to write to; it takes its name only when the block ends without an error.

    A remote path is spooled to local disk first and uploaded whole.
    """
    remote = is_remote(path)
    folder = Path(tempfile.gettempdir()) if remote else Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            if not remote:
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                os.fsync(file.fileno())
        if remote:
            retried(lambda: filesystem(path).put_file(temporary, str(path)), f"uploading {path}")
        else:
            Path(temporary).replace(path)
            sync_directory(folder)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    """Permissions the user withholds from new files (mkstemp's 0600 would hide results from everyone else)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


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
            retried(lambda: filesystem(path).pipe_file(str(path), data, mode="create"), f"creating {path}")
        except FileExistsError:
            return False
        return True
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.link(temporary, target)
        sync_directory(target.parent)
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)
    return True


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


def remove_unfinished(directory: Location) -> None:
    """Delete what killed writers left in a local folder."""
    if not is_remote(directory) and Path(directory).is_dir():
        for path in Path(directory).glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)
