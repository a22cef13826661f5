"""Remote shards in long stretches: fetched ahead, kept on local disk while the shuffle draws on them.

A window of the shuffle (:mod:`dav2.data.feed.sampler`) takes its frames from some 32 runs of up to 64 neighbours.
Fetched one by one they cost two requests a frame; a run fetched whole costs one or two for 64. The processes of one
machine share a folder, so a run comes over the network once for all of them. What is not there yet, or could not be
fetched, is read directly: reading ahead saves time and requests, nothing depends on it."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dav2.data import ranges
from dav2.locks import exclusive

if TYPE_CHECKING:  # takes half a second to import, and a launcher only needs the folder
    from dav2.data.feed.frame_table import FrameTable, Request
    from dav2.data.feed.sampler import FrameOrder

FOLDER = "DAV2_READ_AHEAD"
"""Environment variable with the folder that the processes of a launch share on one machine."""
SHARE = 0.25
"""Runs are fetched whole where this machine needs at least this share of their frames."""
FETCHES = 8
"""Runs under way at a time."""
_PREFIX = "dav2-read-ahead-"

log = logging.getLogger(__name__)


class _Stretch(NamedTuple):
    """Bytes ``start`` … ``end`` of a remote file and where they lie now."""

    path: str
    start: int
    end: int
    file: Path


class ReadAhead:
    """Fetches the runs of the window at hand and of the next; a context manager.

    Args:
        frames, order: what is read, and when.
        cached: whether a frame is in memory, so that its bytes are not needed.
        folder: shared by the processes of this machine; by default one of its own, which goes with it.
    """

    def __init__(
        self, frames: FrameTable, order: FrameOrder, cached: Callable[[int], bool], folder: Path | None = None
    ) -> None:
        self.frames, self.order, self.cached = frames, order, cached
        self._stack = contextlib.ExitStack()
        self.folder = folder or self._stack.enter_context(shared_folder())
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(FETCHES, "read-ahead")
        self._lock = threading.Lock()
        self._window = (-1, -1)
        self._runs: dict[int, Future[list[_Stretch]]] = {}
        self._leaving: dict[int, Future[list[_Stretch]]] = {}

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._stack.close()

    def approach(self, position: int) -> None:
        """Tell which position of the order is read next; on entering a window, runs come and go."""
        window = self.order.window_of(position)
        with self._lock:
            if window <= self._window:
                return
            self._window = window
            following = self.order.window_of(self.order.end_of(window))
            wanted = dict.fromkeys([*self.order.runs(window), *self.order.runs(following)])
            # Other processes may still be in the window before: what is left there stays for one window more.
            gone = {run: future for run, future in self._leaving.items() if run not in wanted}
            self._leaving = {run: future for run, future in self._runs.items() if run not in wanted}
            known = {**self._runs, **gone}
            self._runs = {run: known[run] if run in known else self._pool.submit(self._fetch, run) for run in wanted}
        for run, future in gone.items():
            if run not in self._leaving:
                _delete(future)

    def nearest(self, frame: int, requests: tuple[Request, ...]) -> tuple[Request, ...]:
        """Where to read a frame's image and targets: in a fetched stretch, or where they were."""
        run = self.order.run(frame)
        future = self._runs.get(run) or self._leaving.get(run)
        # One that is on its way is worth waiting for, one that waits its turn is not.
        if future is None or not (future.running() or future.done()):
            return requests
        try:
            stretches = future.result()
        except (OSError, CancelledError):
            return requests
        return tuple(_redirected(request, stretches) for request in requests)

    def _fetch(self, run: int) -> list[_Stretch]:
        first, last = self.order.bounds(run)
        if all(self.cached(frame) for frame in range(first, last)):
            return []
        try:
            return [self._fetched(*stretch) for stretch in self.frames.stretches(first, last)]
        except OSError as error:
            log.warning("%s: not read ahead, frames come one by one: %s", self.folder, error)
            raise

    def _fetched(self, path: str, start: int, end: int) -> _Stretch:
        name = hashlib.sha256(f"{path} {start} {end}".encode()).hexdigest()[:32]
        file = self.folder / name
        # Held by the process that fetches; the others find the file when it is theirs.
        with exclusive(file.with_suffix(".lock")):
            if not file.exists():
                part = file.with_suffix(".part")
                try:
                    with part.open("w+b") as local:
                        ranges.fetch_range(path, start, end, local)
                    part.replace(file)
                finally:
                    part.unlink(missing_ok=True)
        return _Stretch(path, start, end, file)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder for the processes of one launch, deleted with what is in it; those of killed launches go too."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def worth_it(world: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this machine's processes need so much of each run that it is fetched whole."""
    here = int(environment.get("LOCAL_WORLD_SIZE", 1)) if FOLDER in environment else 1
    return here / world >= SHARE


def _redirected(request: Request, stretches: list[_Stretch]) -> Request:
    path, offset, size = request
    for stretch in stretches:
        if stretch.path == path and stretch.start <= offset and offset + size <= stretch.end:
            return str(stretch.file), offset - stretch.start, size
    return request


def _delete(future: Future[list[_Stretch]]) -> None:
    if future.cancel() or future.exception() is not None:
        return
    for stretch in future.result():
        stretch.file.unlink(missing_ok=True)
