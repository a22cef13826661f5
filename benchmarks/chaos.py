"""Every stage of the pipeline under kills and worse, at random moments; what is left is compared with undisturbed runs.

Protocol: a clone of what is committed, at the tiny scale cut down to one stage of a kind. The pipeline is walked once,
stage by stage. Each chosen stage first runs undisturbed twice from nothing, once through ``dvc repro`` and once as its
own command; what the two already differ in (time of day, seconds taken) is not held against a disturbed run. Then its
outputs, the registry and ``dvc.lock`` are put back to what they were before it, it is started, and at a moment drawn
evenly over the time that it took undisturbed, one of these happens:

all        SIGKILL of every process of it, ``dvc`` among them
stage      SIGKILL of its own process alone: what it started must go by itself
clock      the time of day jumps by a day, forth or back (where a C compiler is)
read-only  the folder it writes to no longer lets it (its own command only)
removed    what it has written so far is deleted; an output that then lacks altogether is a failure, as it is to DVC

A moment that finds the stage gone counts as missed, not as a hit. The stage is then run until it ends well, at most
three times more. A hit passes when files, registry and records are the same, no file is left over, no process outlives
it, and what it said of its failure is no traceback.

    python -m benchmarks.chaos [--hits 10] [--minutes 30] [--stages 'teacher|register'] [--troubles all,stage]
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.chaos_arena import ROUTES, TROUBLES, Arena, Route, Running, available
from benchmarks.chaos_state import State, differences, volatile

ATTEMPTS = 4
"""Runs of a stage after which it counts as one that does not recover."""
SETTLE = 30.0
"""Seconds that what a killed stage started may take to go."""


@dataclass
class Hit:
    """One disturbance of a stage at work, and what came of it."""

    stage: str
    route: Route
    trouble: str
    moment: float
    attempts: int
    faults: list[str]


@dataclass
class Known:
    """A stage as it runs undisturbed."""

    stage: str
    command: list[str]
    seconds: dict[Route, float]
    before: State
    after: State
    volatile: set[str]


@dataclass
class Tally:
    """All hits, and how many moments found their stage gone."""

    hits: list[Hit] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)


def learn(arena: Arena, stage: str) -> Known:
    """Run a stage undisturbed by both routes, and note what the two differ in."""
    before = arena.state(stage)
    seconds: dict[Route, float] = {}
    found: list[State] = []
    command: list[str] = []
    for route in ROUTES:
        arena.restore(stage, before)
        running = arena.start(stage, route, command)
        command = running.own_command()
        if running.wait():
            sys.exit(f"{stage} failed undisturbed ({route}):\n{running.output()[-3000:]}")
        seconds[route] = running.seconds()
        found.append(arena.state(stage))
    arena.restore(stage, found[0])
    return Known(stage, command, seconds, before, found[0], volatile(*found))


def disturb(arena: Arena, known: Known, route: Route, trouble: str, draw: random.Random) -> Hit | None:
    """Start a stage, hurt it, run it until it ends well, and compare; ``None`` where it was gone already."""
    arena.restore(known.stage, known.before)
    moment = draw.uniform(0.0, known.seconds[route])
    running = arena.start(known.stage, route, known.command)
    alive = running.sleep_until(moment)
    if alive:
        arena.hurt(running, trouble, draw)
    status, attempts, faults = running.wait(), 1, told(running)
    arena.heal()
    while (status or arena.lacks(known.stage)) and attempts < ATTEMPTS:
        attempts += 1
        running = arena.start(known.stage, route, known.command)
        status = running.wait()
        faults += told(running)
    if status:
        faults.append(f"does not recover: {running.output()[-300:]}")
    if left := arena.stragglers(SETTLE):
        faults.append(f"outlived by {left}")
    faults += differences(known.after, arena.state(known.stage), known.volatile)
    return Hit(known.stage, route, trouble, moment, attempts, faults) if alive else None


def told(running: Running) -> list[str]:
    """A fault where the stage said what went wrong by a traceback."""
    said = running.output()
    return [f"traceback: {said.strip().splitlines()[-1][:200]}"] if "Traceback (most recent call last)" in said else []


def walk(arena: Arena, given: argparse.Namespace, console: Console) -> Tally:
    """The pipeline from its first stage to its last, the chosen ones disturbed on the way."""
    draw, tally = random.Random(given.seed), Tally()
    stages = arena.stages()
    chosen = one_of_each_kind(stages) if given.stages is None else [s for s in stages if re.search(given.stages, s)]
    troubles = [name for name in given.troubles.split(",") if available(name)]
    end = time.monotonic() + given.minutes * 60
    for stage in stages[: max((stages.index(name) for name in chosen), default=-1) + 1]:
        if stage not in chosen:
            arena.once(stage)
            continue
        known = learn(arena, stage)
        console.print(f"{stage}: {', '.join(f'{s:.1f} s ({r})' for r, s in known.seconds.items())}", highlight=False)
        share = (end - time.monotonic()) / (len(chosen) - chosen.index(stage))
        until, hits = time.monotonic() + share, 0
        for trouble, route in itertools.cycle(itertools.product(troubles, ROUTES)):
            if hits >= given.hits or time.monotonic() > until:
                break
            if trouble == "read-only" and route == "dvc":
                continue
            hit = disturb(arena, known, route, trouble, draw)
            if hit is None:
                tally.missed[stage] += 1
                continue
            hits += 1
            tally.hits.append(hit)
            said = "; ".join(hit.faults) or "same"
            console.print(
                f"  {trouble} ({route}) at {hit.moment:.1f} s, {hit.attempts} runs: {said}",
                highlight=False,
                markup=False,
            )
        arena.restore(stage, known.after)
    return tally


def one_of_each_kind(stages: list[str]) -> list[str]:
    """The first stage of each kind, such as ``ingest@…``."""
    return list({stage.partition("@")[0]: stage for stage in reversed(stages)}.values())[::-1]


def show(tally: Tally, console: Console) -> None:
    """A row for each stage, a column for each trouble: hits that passed, of hits."""
    table = Table("stage", *TROUBLES, "missed", "most runs needed")
    for stage in dict.fromkeys(hit.stage for hit in tally.hits):
        mine = [hit for hit in tally.hits if hit.stage == stage]
        cells = []
        for trouble in TROUBLES:
            passed = [not hit.faults for hit in mine if hit.trouble == trouble]
            cells.append(f"{sum(passed)}/{len(passed)}" if passed else "")
        table.add_row(stage, *cells, str(tally.missed[stage]), str(max(hit.attempts for hit in mine)))
    console.print(table)
    good = sum(not hit.faults for hit in tally.hits)
    routes = Counter(hit.route for hit in tally.hits)
    by_route = ", ".join(f"{count} {route}" for route, count in routes.items())
    console.print(
        f"{good} of {len(tally.hits)} hits passed ({by_route}); {tally.missed.total()} missed", highlight=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=10, help="at most, of each stage")
    parser.add_argument("--minutes", type=float, default=30.0, help="shared by the stages that are left")
    parser.add_argument("--stages", help="pattern of their names; one of each kind when left out")
    parser.add_argument("--troubles", default=",".join(TROUBLES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console(width=140)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that the servers are stopped too.
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder) / "dav2")
        try:
            tally = walk(arena, given, console)
        finally:
            arena.close()
    show(tally, console)
    sys.exit(1 if any(hit.faults for hit in tally.hits) else 0)


if __name__ == "__main__":
    main()
