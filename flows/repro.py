"""``make repro``: ``dvc repro`` with a line for each stage, instead of all that DVC, Prefect and the stages print.

DVC decides and runs as ever, and everything that it and its stages print goes to ``.dav2/repro.log``. How long the rest
will take is told from how long each stage took the last time, kept in ``.dav2/repro.json``; a stage that never ran here
counts as long as others of its kind, or as the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from statistics import mean
from types import FrameType
from typing import TextIO

import psutil

from dav2.durations import spoken
from dav2.files import write_whole
from flows.order import stages
from flows.processes import STATE

LOG, TIMES = STATE / "repro.log", STATE / "repro.json"
BEGINS, SKIPPED = re.compile(r"Running stage '([^']+)':"), re.compile(r"Stage '([^']+)' (?:didn't change|is cached)")
DVCS = r"^(> |ERROR: failed to reproduce|Updating lock file|To (track|enable)|Use `dvc push`|\s*(git add|dvc config)|$)"
NOISE = re.compile(rf"{DVCS}|\| (INFO|DEBUG) ")
KEPT = 15
"""Lines of a stage that failed which are shown."""


@dataclass
class Show:
    """A line for each stage; on a terminal the last one follows what the stage says of itself.

    Attributes:
        order: every stage that may run, in about the order in which they will.
        times: seconds that stages took the last time.
        out: where the lines go.
    """

    order: list[str]
    times: dict[str, float]
    out: TextIO
    begun: float = field(default_factory=time.monotonic)
    done: dict[str, float] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    running: str = ""
    since: float = 0.0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=200))

    def take(self, line: str) -> None:
        """One line of DVC or of a stage."""
        if found := BEGINS.match(line):
            self.ended()
            self.running, self.since = found[1], time.monotonic()
            self.tail.clear()
            self._write(self._line(), end="")
            return
        if found := SKIPPED.match(line):
            self.ended()
            self.skipped.add(found[1])
            return
        self.tail.append(line)
        if self.running and self.out.isatty() and "| INFO " in line:
            said = line.rpartition(" - ")[2].strip()
            width = os.get_terminal_size(self.out.fileno()).columns
            self._write(f"\r\033[K{f'{self._line()}  {said}'[: width - 1]}", end="")

    def ended(self, note: str = "") -> None:
        """The stage that ran came to its end."""
        if not self.running:
            return
        took = time.monotonic() - self.since
        if not note:
            self.done[self.running] = took
        start = f"\r\033[K{self._line()}" if self.out.isatty() else ""
        self._write(f"{start}  {note or spoken(took)}")
        self.running = ""

    def failure(self) -> str:
        """What the stage that failed said itself, without the lines of the programs around it."""
        said = [line for line in self.tail if not NOISE.search(line)]
        return "\n".join(said[-KEPT:])

    def left(self) -> float | None:
        """Seconds that what may still run will take; ``None`` as long as nothing is known."""
        waiting = [each for each in self.order if each not in self.done and each not in self.skipped]
        seen = {**self.times, **self.done}
        if not seen:
            return None
        return sum(self._expected(each, seen) for each in waiting)

    def _expected(self, stage: str, seen: dict[str, float]) -> float:
        if stage in seen:
            return max(0.0, seen[stage] - (time.monotonic() - self.since if stage == self.running else 0.0))
        kind = [seconds for name, seconds in seen.items() if name.partition("@")[0] == stage.partition("@")[0]]
        return mean(kind or seen.values())

    def _line(self) -> str:
        number = len(self.done) + len(self.skipped) + 1
        left, so_far = self.left(), spoken(time.monotonic() - self.begun)
        still = "" if left is None else f", about {spoken(left)} still"
        return f"stage {number:2} of {len(self.order)}  {self.running:<28} {so_far} so far{still}"

    def _write(self, text: str, end: str = "\n") -> None:
        print(text, end=end, file=self.out, flush=True)


def run(targets: list[str], out: TextIO) -> int:
    """Run ``dvc repro``; its exit status, 130 if it was interrupted."""
    STATE.mkdir(exist_ok=True)
    # Started in the background of a script, this process would ignore Ctrl-C, and so would all that it starts: then
    # nothing could ask a stage to stop in order.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dvc = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", *targets],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _stop)
    assert dvc.stdout is not None
    show = Show([], {}, out)
    try:
        show.order, show.times = stages(targets), _times()
        with LOG.open("w", encoding="utf-8") as log:
            for line in dvc.stdout:
                log.write(line)
                log.flush()
                show.take(line.rstrip())
        status = dvc.wait()
    except KeyboardInterrupt:
        show.ended("stopped")
        dvc.wait()
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    finally:
        _keep(show)
    failed = show.running
    show.ended("failed" if status else "")
    _keep(show)
    if status:
        what = f"stage {failed} failed" if failed else "dvc repro failed"
        print(f"{what}; it said:\n{show.failure()}\n(all of it: {LOG}, or with VERBOSE=1)", file=sys.stderr)
        return status
    took = spoken(time.monotonic() - show.begun)
    ran = f"{len(show.done)} stages ran in {took}" if show.done else "nothing was stale"
    print(f"{ran}, {len(show.skipped)} were up to date", file=out)
    return 0


def _times() -> dict[str, float]:
    try:
        return {str(name): float(seconds) for name, seconds in json.loads(TIMES.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}  # They are guesses; without them others are made.


def _keep(show: Show) -> None:
    if show.done:
        write_whole(TIMES, json.dumps({**_times(), **{name: round(took, 1) for name, took in show.done.items()}}))


def _stop(signum: int, frame: FrameType | None) -> None:
    """End what runs as Ctrl-C would: a stage writes what it has, and the next call goes on from there."""
    mine = os.getpgid(0)
    for process in psutil.Process().children(recursive=True):
        try:
            # Servers lead sessions of their own and stay; a training is stopped by its stage.
            if os.getpgid(process.pid) == mine:
                process.send_signal(signal.SIGINT)
        except (psutil.Error, ProcessLookupError):
            continue
    raise KeyboardInterrupt


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to bring up to date with all they need; none means all")
    sys.exit(run(parser.parse_args().targets, sys.stdout))
