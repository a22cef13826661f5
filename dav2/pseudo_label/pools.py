"""Workers by the name of a runner."""

from __future__ import annotations

from dav2.pseudo_label.ray_workers import ray_workers
from dav2.pseudo_label.workers import InProcessWorker, Workers, WorkerSetup, process_workers


def open_workers(runner: str, count: int, setup: WorkerSetup) -> Workers:
    """Workers by the name of a runner: ``in_process``, ``process_pool`` or ``ray``."""
    if runner == "process_pool":
        return process_workers(setup, count)
    if runner == "ray":
        return ray_workers(setup, count)
    return InProcessWorker(setup)
