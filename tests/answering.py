"""Waiting for a server that a test has started."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from pathlib import Path

PATIENCE = 500.0
"""Seconds: importing what a server needs takes minutes while other programs have the cores; tests end after 600."""


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a GET of ``url`` succeeds; fails with the content of ``log`` when the server ended or took too long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
