"""Memory of this process."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's ``mallopt``."""


def peak_megabytes() -> float:
    """Largest resident set of this process so far, in MiB.

    On Linux ``getrusage`` hands the peak of the process that started this one on to it, through ``exec``; the kernel's
    ``VmHWM`` begins anew.
    """
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def keep_freed_memory() -> None:
    """Let this process keep large blocks that it frees, for a program that takes the same blocks again and again.

    By default glibc returns a feature map to the kernel and takes it back, page by page and zeroed, at the next layer:
    an eighth of the time of a ViT-S prediction on two cores, and as much of an ingestion. Does nothing where the C
    library is another.
    """
    _set((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28))


def return_freed_memory() -> None:
    """Undo :func:`keep_freed_memory`: for pictures of which every copy takes hundreds of megabytes."""
    _set((M_MMAP_MAX, 65536), (M_TRIM_THRESHOLD, 2**17), (M_TOP_PAD, 2**17))
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def _set(*settings: tuple[int, int]) -> None:
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in settings:
            mallopt(parameter, value)
