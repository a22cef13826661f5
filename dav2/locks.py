"""Locks among the processes of one machine, kept by the system, which frees them when their holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class Held(OSError):
    """Another process holds the lock."""


@contextmanager
def exclusive(path: Path, wait: float | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, which stays when the block ends: deleting it would let two in.

    Args:
        path: made, with its folders, where it is not there.
        wait: seconds to wait for another holder; ``None`` waits as long as it takes.

    Raises:
        Held: it was not free within ``wait``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait is None else wait, thread_local=False)
    try:
        lock.acquire(poll_interval=0.02)
    except Timeout:
        raise Held(f"{path} is held by another process") from None
    try:
        yield
    finally:
        lock.release()
