"""Making the shards of an ingestion in this process or in several; finished ones are kept."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from dav2.data import storage
from dav2.data.raw.sources import Source, open_source
from dav2.data.store.ingest.shard import Receipt, Settings, ShardTask, make_shard, receipt_path
from dav2.memory import keep_freed_memory

FEW_FRAMES = 200
"""Up to so many frames one process is done before several have started."""

Progress = Callable[[int, int], None]


class IngestError(RuntimeError):
    """An ingestion that cannot go on; the message says why and what to do."""


def make_shards(
    tasks: list[ShardTask], settings: Settings, source: Source, out: storage.Location, workers: int, progress: Progress
) -> None:
    """Make the shards that lack a fitting receipt, and take away shards that no task names.

    Raises:
        IngestError: a worker process died.
    """
    _remove_strangers(tasks, out)
    total = sum(len(task.items) for task in tasks)
    pending = [task for task in tasks if not _is_done(task, out)]
    for task in pending:
        storage.remove(receipt_path(out, task.shard))
    frames = sum(len(task.items) for task in pending)
    done = total - frames
    progress(done, total)
    few = workers == 1 or len(pending) < 2 or frames <= FEW_FRAMES
    made = _in_this_process(pending, settings, source, out) if few else _in_processes(pending, settings, out, workers)
    for task in made:
        done += len(task.items)
        progress(done, total)


def _is_done(task: ShardTask, out: storage.Location) -> bool:
    receipt = Receipt.load(out, task.shard)
    return receipt is not None and receipt.fingerprint == task.fingerprint and receipt.holds(out)


def _remove_strangers(tasks: list[ShardTask], out: storage.Location) -> None:
    wanted = {task.shard for task in tasks}
    for name in storage.names(out):
        if name.endswith(".tar") and name not in wanted:
            storage.remove(storage.join(out, name))


def _in_this_process(
    tasks: list[ShardTask], settings: Settings, source: Source, out: storage.Location
) -> Iterator[ShardTask]:
    keep_freed_memory()
    for task in tasks:
        make_shard(task, settings, source, out)
        yield task


def _in_processes(
    tasks: list[ShardTask], settings: Settings, out: storage.Location, workers: int
) -> Iterator[ShardTask]:
    """Fresh processes, since object-store clients do not survive a fork; at most one task waits per worker."""
    context = multiprocessing.get_context("spawn")
    waiting = iter(tasks)
    running: dict[Future[None], ShardTask] = {}
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start_worker, initargs=(settings, str(out))
    )
    try:
        while True:
            for task in islice(waiting, 2 * workers - len(running)):
                running[pool.submit(_work, task)] = task
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                future.result()
                yield task
    except BrokenProcessPool:
        at_work = ", ".join(sorted(task.shard for task in running.values()))
        raise IngestError(
            f"{out}: a worker process died (out of memory, or killed) while making one of {at_work}; "
            "start again, it resumes; fewer workers need less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """What a worker process keeps from task to task."""

    settings: Settings
    out: str
    source: Source


def _start_worker(settings: Settings, out: str) -> None:
    keep_freed_memory()
    _Worker.settings, _Worker.out = settings, out
    _Worker.source = open_source(settings.reader, settings.path, settings.name, settings.options)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, which would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: ShardTask) -> None:
    make_shard(task, _Worker.settings, _Worker.source, _Worker.out)
