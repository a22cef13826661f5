"""Parts of files, local or remote: several at once, neighbours together, and long ones a piece at a time."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from dav2.data.storage import StorageError, filesystem, is_remote, retried

if TYPE_CHECKING:
    from s3fs import S3FileSystem

GAP = 65536
"""Bytes between two ranges of a remote file up to which fetching them too is cheaper than another request."""
_PIECE = 2**20


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


def _stream_s3(system: S3FileSystem, path: str, start: int, end: int, file: IO[bytes]) -> None:
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
