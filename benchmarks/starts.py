"""The ladder of starts: how many steps a student needs, by what its weights begin as.

    python benchmarks/starts.py                     # in a project that 'make repro' has built, at the sample scale

Trains one student on the labels that are there, from random weights for all of its steps, and for a third of them from
random weights, from the encoder alone of a trained student, and from all of it; each is scored on DA-2K like any model.
Nothing of the project is changed: runs are made in a temporary folder that links to its data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from dav2.evaluation.evaluate import evaluate_model
from dav2.params import load

TRAIN = [sys.executable, "-m", "dav2.families.rank", "--run"]


def rungs(student: str, steps: int) -> list[tuple[str, str, str, int]]:
    """(name, start, take, steps) of each run."""
    third = steps // 3
    return [
        ("random", "random", "all", steps),
        ("random, a third of the steps", "random", "all", third),
        ("encoder of a student", f"models/student-{student}", "encoder", third),
        ("all of a student", f"models/student-{student}", "all", third),
    ]


def climb(project: Path, student: str) -> list[dict[str, object]]:
    """Train and score every rung."""
    tree = yaml.safe_load((project / "params.yaml").read_text())
    settings = tree["students"][student]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("data", "infra"):
            (root / name).symlink_to((project / name).resolve())
        (root / "artifacts" / "models").mkdir(parents=True)
        for each in (project / "artifacts").iterdir():
            if each.name not in ("models", "training", "scores"):
                (root / "artifacts" / each.name).symlink_to(each.resolve())
        for each in (project / "artifacts" / "models").iterdir():
            (root / "artifacts" / "models" / each.name).symlink_to(each.resolve())
        for number, (name, start, take, steps) in enumerate(rungs(student, settings["steps"])):
            key = f"rung{number}"
            tree["students"][key] = {**settings, "start": start, "take": take, "steps": steps}
            (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
            began = time.perf_counter()
            command = [*TRAIN, f"student-{key}", "--params", str(root / "params.yaml"), "--root", str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - began
            scores = evaluate_model(f"student-{key}", load(root / "params.yaml"), root, benchmarks=["da2k"]).da2k
            percent = {end: round(100 * getattr(scores, end), 1) for end in ("accuracy", "low", "high")}
            rows.append({"start": name, "steps": steps, "seconds": round(seconds), **percent})
            print(json.dumps(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="a project that is built (default: here)")
    parser.add_argument("--student", default="vitt", help="key of the student (default: %(default)s)")
    options = parser.parse_args()
    climb(options.project, options.student)
