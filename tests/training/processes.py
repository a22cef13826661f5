"""Real processes that train, forked from a server that has imported everything: a rank starts in milliseconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.training.journal import METRICS
from tests import forkserver
from tests.forkserver import PATIENCE


def start(params: Path, run: str, world: int = 1, task: Callable[..., None] | None = None) -> list[ForkServerProcess]:
    """Start the ranks of a run in the project of ``params``; ``task`` replaces what a rank does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(world):
        arguments = (params, run, rank, world, port, task or train_rank)
        ranks.append(forkserver.start(_enter, *arguments))
    return ranks


def finish(ranks: list[ForkServerProcess]) -> list[int | None]:
    """Wait for all ranks; their exit codes. None is left running."""
    deadline = time.monotonic() + PATIENCE
    for process in ranks:
        process.join(max(0.1, deadline - time.monotonic()))
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes


def run_to_end(params: Path, run: str, world: int = 1, task: Callable[..., None] | None = None) -> None:
    """Run all ranks to a good end."""
    codes = finish(start(params, run, world, task))
    assert codes == [0] * world, (params.parent / "rank-0.log").read_text()[-4000:]


def wait_for_step(params: Path, run: str, step: int, ranks: list[ForkServerProcess]) -> None:
    """Until the run has noted ``step``."""
    metrics = layout.training(params.parent, run) / METRICS
    deadline = time.monotonic() + PATIENCE
    while not any(line["step"] >= step for line in read_lines(metrics)):
        assert time.monotonic() < deadline, "the run does not get on"
        assert any(process.is_alive() for process in ranks), (params.parent / "rank-0.log").read_text()[-4000:]
        time.sleep(0.01)


def stop(ranks: list[ForkServerProcess], number: signal.Signals) -> list[int | None]:
    """Send a signal to every rank and wait."""
    for process in ranks:
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, number)
    return finish(ranks)


def _enter(params: Path, run: str, rank: int, world: int, port: int, task: Callable[..., None]) -> None:
    log = (params.parent / f"rank-{rank}.log").open("w", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    task(params, run)


def train_rank(params: Path, run: str) -> None:
    """What ``python -m dav2.families.rank`` does."""
    from dav2.families.rank import main

    sys.argv = ["train", "--run", run, "--params", str(params), "--root", str(params.parent)]
    sys.exit(main())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a journal as they stand there; the last may just be written, or was cut off."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def comparable(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Journal lines without what a clock decides."""
    clock = ("time", "seconds", "images_per_second", "data_wait", "memory_mb")
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]
