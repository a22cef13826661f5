"""Two training runs at once on the same cores beside one alone.

Protocol: ``student-vitn`` of the project here is trained for ``--steps`` steps in a folder of its own, by the launcher
as ``dvc repro`` starts it, once alone and then twice at the same time, alternating ``--turns`` times. The figure is the
median time from the tenth step to the last (the start of the interpreters does not count), two at once over one. With
``--spin`` the threads wait as libgomp makes them by itself, for comparison. The pipeline must have been run up to the
labels; run it on a machine that does nothing else.

    python benchmarks/together.py [--steps 60] [--turns 3] [--spin]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path

import yaml

from dav2.documents import StepLine
from dav2.params import load
from dav2.training.journal import Line
from dav2.training.launch import launch

RUN = "student-vitn"
FIRST = 10
"""Steps that do not count."""


def project(folder: Path, steps: int) -> Path:
    """A project folder with the data of this one and a short run; returns its settings."""
    tree = load("params.yaml").model_dump(mode="json", by_alias=True)
    tree["students"]["vitn"] |= {"steps": steps, "checkpoint": {"every_steps": steps, "evaluate_every": steps}}
    folder.mkdir()
    (folder / "artifacts").mkdir()
    for name in ("artifacts/shards", "artifacts/pseudo", "infra"):
        (folder / name).symlink_to(Path(name).resolve())
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(tree))
    load(params)
    return params


def seconds(params: Path) -> float:
    """Time of a run's steps after the first ones."""
    times: dict[int, float] = {}

    def note(event: Line) -> None:
        if isinstance(event, StepLine):
            times[event.step] = event.time

    launch(RUN, params, params.parent, note)
    return times[max(times)] - times[FIRST]


def at_once(folder: Path, count: int, steps: int) -> float:
    """Longest time of ``count`` runs that are started together."""
    found: list[float] = []
    several = [project(folder / str(number), steps) for number in range(count)]
    threads = [threading.Thread(target=lambda p=params: found.append(seconds(p))) for params in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for params in several:
        shutil.rmtree(params.parent)
    if len(found) < count:
        sys.exit("a run failed")
    return max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--spin", action="store_true", help="let threads wait as libgomp does by itself")
    given = parser.parse_args()
    if given.spin:
        os.environ["GOMP_SPINCOUNT"] = "300000"
    one, two = [], []
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(given.turns):
            one.append(at_once(Path(temporary), 1, given.steps))
            two.append(at_once(Path(temporary), 2, given.steps))
    alone, together = statistics.median(one), statistics.median(two)
    print(f"one alone {alone:.1f} s, two at once {together:.1f} s: {together / alone:.2f} times as long")


if __name__ == "__main__":
    main()
