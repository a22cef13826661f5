"""A process that does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def stop_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however that one dies.

    Only Linux can; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_if_orphaned(parent: str) -> None:
    """End this process if its parent's command line does not hold ``parent``: it died before it could be watched.

    To be called after :func:`stop_with_parent`, which tells only of deaths to come. Only Linux can.
    """
    if sys.platform == "linux":
        try:
            command = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
        except OSError:
            command = b""
        if parent.encode() not in command:
            sys.exit(128 + signal.SIGTERM)
