"""The peak of a process is its own."""

from __future__ import annotations

import subprocess
import sys

from dav2.memory import peak_megabytes


def test_the_peak_covers_what_was_used_and_not_what_the_starting_process_used() -> None:
    block = bytearray(300 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert peak_megabytes() > 300
    program = "from dav2.memory import peak_megabytes; print(peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert 1 < float(done.stdout) < 200
