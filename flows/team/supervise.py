"""The team's stack as processes: started in order, started again when they die, ended in order.

Run as ``python -m flows.team.supervise``, by ``flows.team up``; SIGTERM ends it and all of them. What a service writes
lies in ``logs/<service>.log`` below the stack's folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dav2.training.death import stop_with_parent
from flows.team import compose, places
from flows.team.settings import TeamError

LONGEST_PAUSE = 30.0
"""Seconds between two starts of a service that dies at once, at most; they double from one."""
STEADY = 60.0
"""A service that ran this long begins with the shortest pause again."""
STOP_SECONDS = 30.0
_TICK = 0.3


@dataclass
class Process:
    """One service and the process that it is now."""

    name: str
    service: compose.Service
    running: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = 1.0
    not_before: float = 0.0
    healthy: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, logs: Path) -> None:
        """Start it, its output at the end of ``<name>.log`` in ``logs``; it is not waited for."""
        with (logs / f"{self.name}.log").open("ab") as output:
            self.running = subprocess.Popen(
                _ours(self.service.command), env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=stop_with_parent,
            )  # fmt: skip
        self.began = time.monotonic()

    def well(self) -> bool:
        """Whether its own check says that it is well; asked until it has said so once."""
        if self.running is not None and not self.healthy and self.service.check:
            check = subprocess.run(_ours(self.service.check), env=self.environment, capture_output=True)
            self.healthy = check.returncode == 0
        return self.healthy

    def look(self) -> None:
        """See whether it has ended, and when it is to start again."""
        if self.running is None or (status := self.running.poll()) is None:
            return
        _end(self.running.pid)
        ran = time.monotonic() - self.began
        self.running, self.healthy = None, False
        self.pause = 1.0 if ran > STEADY else min(self.pause * 2, LONGEST_PAUSE)
        self.not_before = time.monotonic() + self.pause
        print(f"{self.name} ended with {status} after {ran:.0f} s; again in {self.pause:.0f} s", flush=True)


def _ours(command: list[str]) -> list[str]:
    return [sys.executable if word == "python" else word for word in command]


def _end(pid: int, signum: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def _ready(process: Process, others: dict[str, Process]) -> bool:
    """Whether what the service waits for is there."""
    for name, wanted in process.service.depends_on.items():
        other, condition = others[name], wanted.get("condition", compose.STARTED)
        if not (other.running is not None if condition == compose.STARTED else other.well()):
            return False
    return True


def run(only: list[str]) -> None:
    """Keep every service up, or ``only`` those, until SIGTERM."""
    folder = places.folder()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    every = compose.services(compose.FILE, places.variables())
    processes = {
        name: Process(name, each, environment=places.of(name, each))
        for name, each in every.items()
        if not only or name in only
    }
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    signal.signal(signal.SIGINT, lambda *_: stopping.append(1))
    while not stopping:
        for process in processes.values():
            process.look()
            waiting = process.running is None and time.monotonic() >= process.not_before
            if waiting and _ready(process, processes) and not stopping:
                process.start(logs)
                print(f"started {process.name}", flush=True)
        time.sleep(_TICK)
    for process in reversed(processes.values()):
        if process.running is not None:
            process.running.terminate()
            try:
                process.running.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{process.name} did not end; it is killed", flush=True)
            _end(process.running.pid)


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except TeamError as error:
        sys.exit(f"error: {error}")
