"""What of this machine a process may use: cores, memory, disk; a container's limits count."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@cache
def cores() -> int:
    """Cores this process may use: affinity and a container's share of time count; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, int(_quota() or affinity)))


def _quota() -> float | None:
    """Cores' worth of time that the control group allows; ``None`` without a limit."""
    both = read(_CGROUP / "cpu.max").split()
    if len(both) != 2:
        both = [read(_CGROUP / "cpu" / f"cpu.cfs_{part}_us") for part in ("quota", "period")]
    try:
        quota, period = (float(part) for part in both)
    except ValueError:
        return None
    return max(1.0, quota / period) if quota > 0 and period > 0 else None


@cache
def memory() -> int:
    """Bytes of memory this process may use; a container's limit counts."""
    import psutil

    limits = [read(_CGROUP / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([psutil.virtual_memory().total, *(int(limit) for limit in limits if limit.isdigit())])


def disk_free(folder: Path) -> int:
    """Bytes free where ``folder`` lies."""
    return shutil.disk_usage(folder).free


def read(path: Path) -> str:
    """Text of a file of the kernel's, stripped; empty where it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
