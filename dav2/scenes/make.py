"""Render the sample data: jobs over processes, done ones skipped, the same seed giving the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection
from pathlib import Path

from dav2.scenes.sets import SETS
from dav2.scenes.sets.plan import Job, Scale

Progress = Callable[[str, int, int], None]


def make(
    out: Path, seed: int, scale: Scale, only: Iterable[str] = (), workers: int = 2, progress: Progress | None = None
) -> None:
    """Write the sets named in ``only`` (those of the sample, if empty) below ``out``; what is there already is kept.

    Args:
        progress: called with the set's name, jobs done and jobs in all.

    Raises:
        ValueError: a set is not known.
        RuntimeError: Mitsuba is not installed.
    """
    names = list(only) or [name for name, made in SETS.items() if made.in_sample]
    unknown = [name for name in names if name not in SETS]
    if unknown:
        raise ValueError(f"no sample set '{unknown[0]}'; there are {', '.join(SETS)}")
    report = progress or (lambda name, done, total: None)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare_worker) as pool:
        for name in names:
            _make_set(name, out / name, SETS[name].jobs(seed, scale), pool, report)


def _make_set(name: str, root: Path, jobs: list[Job], pool: ProcessPoolExecutor, report: Progress) -> None:
    index = SETS[name].index
    if index and (root / index).exists():
        report(name, len(jobs), len(jobs))
        return
    missing = [job for job in jobs if not (root / SETS[name].marker(job)).exists()]
    done = len(jobs) - len(missing)
    report(name, done, len(jobs))
    futures = [pool.submit(_do, job, root) for job in missing]
    try:
        for future in as_completed(futures):
            future.result()
            done += 1
            report(name, done, len(jobs))
    finally:
        for future in futures:
            future.cancel()
    SETS[name].finish(jobs, root)


def _do(job: Job, root: Path) -> None:
    SETS[job.set].render(job, root)


def _prepare_worker() -> None:
    """One thread per process, and no life after the parent's, however that ends."""
    import cv2

    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
