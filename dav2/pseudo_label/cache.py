"""Image shards of a bucket on local disk, within a bound, shared by the workers of one machine.

A shard is fetched whole: one request instead of one per photograph, and a retry finds it again. A file in use is held
by a shared ``flock``, which the kernel lets go when its process dies, so a killed worker pins nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dav2.data import storage

DEFAULT_BYTES = 50_000_000_000


class ShardCache:
    """Local copies of remote shards.

    Args:
        folder: where they lie; made on first use.
        max_bytes: what the copies may take up together, least recently used ones going first. A shard that is being
            read stays, whatever the bound.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    @contextlib.contextmanager
    def local(self, path: str, version: str) -> Iterator[Path]:
        """A local file with the content of ``path``, which stays for as long as the block lasts.

        Args:
            path: local (given back as it is) or ``s3://``.
            version: changes when the content does; copies of another version are never given.
        """
        if not storage.is_remote(path):
            yield Path(path)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        copy = self.folder / hashlib.sha256(f"{path} {version}".encode()).hexdigest()
        with copy.with_suffix(".lock").open("a") as pin:
            while True:
                fcntl.flock(pin, fcntl.LOCK_EX)
                if not copy.exists():
                    _fetch(path, copy)
                os.utime(copy)
                self._make_room(copy)
                # Going over to a shared lock lets go for a moment, in which another process may make room.
                fcntl.flock(pin, fcntl.LOCK_SH)
                if copy.exists():
                    break
            yield copy

    def drop(self, path: str, version: str) -> None:
        """Forget a copy that turned out to be damaged."""
        (self.folder / hashlib.sha256(f"{path} {version}".encode()).hexdigest()).unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        """Delete copies that nobody reads, oldest use first, until all together fit."""
        entries = [(p, p.stat()) for p in self.folder.glob("*") if not p.suffix]
        total = sum(status.st_size for _, status in entries)
        for path, status in sorted(entries, key=lambda entry: entry[1].st_mtime):
            if total <= self.max_bytes:
                return
            if path != newest and _unused(path):
                path.unlink(missing_ok=True)
                total -= status.st_size


def _unused(copy: Path) -> bool:
    with copy.with_suffix(".lock").open("a") as pin:
        try:
            fcntl.flock(pin, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _fetch(path: str, copy: Path) -> None:
    """Download the whole object, checked against the size that the server states."""
    partial = copy.with_suffix(".part")

    def download() -> None:
        storage.filesystem(path).get_file(path, str(partial))
        expected = storage.size(path)
        if partial.stat().st_size != expected:
            raise storage.StorageError(f"{path}: {partial.stat().st_size} of {expected} bytes arrived")

    storage.retried(download, f"fetching {path}")
    partial.replace(copy)
