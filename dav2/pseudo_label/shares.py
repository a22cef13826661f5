"""How many processes label on this machine, and how many threads each has: its cores, shared out."""

from __future__ import annotations

from typing import NamedTuple

from dav2.params import PseudoLabelParams

LARGE = 150_000_000
"""Parameters of a teacher from which on one process keeps a GPU busy: ViT-L reached 0.82 to 0.95 of its forward rate
with 16 threads in one process. Of smaller ones the thread that starts the kernels waits for the interpreter: ViT-S made
228 labels a second with 16 threads, 416 with 4 processes of 4 (docs/gpu.md)."""
THREADS = 4
"""Cores of each process that shares a GPU with others."""
CLUSTER_THREADS = 8
"""Cores of a worker somewhere in a cluster, where nobody knows the machine beforehand."""


class Shares(NamedTuple):
    """Processes, actors or tasks that label, and threads of each."""

    workers: int
    threads: int


def shares(settings: PseudoLabelParams, cores: int, gpus: int, parameters: int) -> Shares:
    """What ``auto`` means for ``pseudo_label.workers`` and ``pseudo_label.threads``; numbers stay what they are, but
    workers of one machine together take no more threads than it has cores.

    Args:
        cores, gpus: of this machine.
        parameters: of the teacher.
    """
    here = settings.runner in ("in_process", "process_pool")
    if not here:
        workers = 1 if settings.workers == "auto" else settings.workers
        return Shares(workers, CLUSTER_THREADS if settings.threads == "auto" else settings.threads)
    if settings.runner == "in_process":
        workers = 1
    elif settings.workers == "auto":
        each = 1 if parameters >= LARGE else max(1, min(THREADS, cores // max(1, gpus) // THREADS))
        workers = gpus * each if gpus else 1
    else:
        workers = settings.workers
    share = max(1, cores // workers)
    return Shares(workers, share if settings.threads == "auto" else min(settings.threads, share))
