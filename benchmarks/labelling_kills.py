"""Kills the labelling at random moments and compares what is left, byte for byte, with an uninterrupted run.

Protocol: a project folder with a few small shards and a small teacher. The stage is run undisturbed, twice. Then, for
every trial, the labels are deleted and the stage is started in a session of its own; at a random moment between its
start and the time the undisturbed run took, the trial's victim gets SIGKILL:

flow    the process that runs the flow (its labelling processes must go by themselves)
worker  one labelling process (the flow must go on without help, or be resumable)
ray     every process of one node of a real two-node Ray cluster on this machine

The stage is then run again until it ends well, at most three times. A trial passes when every label tar, rows file and
manifest has the same bytes as in the undisturbed run, every photograph has exactly one label, and no unfinished file is
left. A Prefect server is used as ``PREFECT_API_URL`` says, or started for the folder.

    python benchmarks/chaos.py [--trials 6] [--victims flow,worker,ray] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LABELS = Path("artifacts/pseudo/photos")
VICTIMS = ("flow", "worker", "ray")
WORKER = "dav2.pseudo_label.worker"


@dataclass
class Trial:
    """One kill and what came of it."""

    victim: str
    moment: float
    done_before: int
    attempts: int
    same: bool


class Arena:
    """A project folder in which the stage is run and killed."""

    def __init__(self, folder: Path, shards: int, photos: int) -> None:
        from benchmarks.labelling import photographs, write_shards
        from dav2.families.depth_anything.model import build
        from dav2.families.depth_anything.weights import save_directory

        self.folder = folder
        self.labels = folder / LABELS
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        write_shards(folder / "artifacts/shards/unlabelled/photos", photographs(photos), shards)
        save_directory(build("vitn"), folder / "artifacts/models/teacher")

    def settle(self, runner: str) -> None:
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        small = {"sources": ["photos"], "input_size": 140, "batch": 4, "threads": 1, "workers": 2, "runner": runner}
        tree["pseudo_label"] = small
        for student in tree["students"].values():
            student["sources"] = ["photos"]
        (self.folder / "params.yaml").write_text(yaml.safe_dump(tree))

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flows.pseudo_label"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def empty(self) -> None:
        shutil.rmtree(self.labels, ignore_errors=True)

    def contents(self) -> dict[str, str]:
        """Hash of every file that must not depend on how it came about, and no other file than those and receipts."""
        files = [path for path in self.labels.iterdir() if not path.name.endswith(".receipt.json")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def receipts(self) -> int:
        return len(list(self.labels.glob("*.receipt.json")))

    def labelled_once(self) -> bool:
        keys = pd.read_parquet(self.labels / "manifest.parquet")["key"]
        photos = pd.read_parquet(self.folder / "artifacts/shards/unlabelled/photos/manifest.parquet")["key"]
        return list(keys) == list(photos)


def run_undisturbed(arena: Arena) -> tuple[dict[str, str], float]:
    """Hashes of the labels, and seconds from the start to the end of a run that finds the server up."""
    arena.settle("process_pool")
    for _ in range(2):  # The first also starts the server; kills timed by it would mostly come too late.
        arena.empty()
        begun = time.monotonic()
        if arena.start().wait():
            sys.exit(f"the undisturbed run failed:\n{(arena.folder / 'log').read_text()[-3000:]}")
    return arena.contents(), time.monotonic() - begun


def kill(victim: str, process: subprocess.Popen[bytes], cluster: Any) -> None:
    """SIGKILL the trial's victim, if it is there (yet, or still)."""
    if victim == "flow":
        process.kill()
    elif victim == "worker":
        try:
            children = psutil.Process(process.pid).children()
        except psutil.NoSuchProcess:
            return
        for child in [c for c in children if WORKER in " ".join(c.cmdline())][:1]:
            child.send_signal(signal.SIGKILL)
    elif cluster.worker_nodes:
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


def attempt(arena: Arena, victim: str, moment: float, expected: dict[str, str], cluster: Any) -> Trial:
    """One trial: start, kill at ``moment`` seconds, run again until it ends well, compare."""
    arena.empty()
    process = arena.start()
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        kill(victim, process, cluster)
    before = arena.receipts()
    attempts = 1
    while process.wait() and attempts < 4:
        attempts += 1
        process = arena.start()
    same = process.returncode == 0 and arena.contents() == expected and arena.labelled_once()
    return Trial(victim, moment, before, attempts, same)


def run_trials(arena: Arena, arguments: argparse.Namespace, console: Console) -> list[Trial]:
    expected, seconds = run_undisturbed(arena)
    console.print(f"undisturbed: {len(expected)} files, {seconds:.1f} s")
    draw = random.Random(arguments.seed)
    trials = []
    cluster = None
    for number in range(arguments.trials):
        victim = arguments.victims.split(",")[number % len(arguments.victims.split(","))]
        if victim == "ray":
            cluster = ready_cluster(cluster, arena)
        arena.settle("ray" if victim == "ray" else "process_pool")
        trial = attempt(arena, victim, draw.uniform(0.2, 1.0) * seconds, expected, cluster)
        console.print(trial)
        trials.append(trial)
    if cluster is not None:
        cluster.shutdown()
    return trials


def ready_cluster(cluster: Any, arena: Arena) -> Any:
    """A Ray cluster of two one-core nodes; a node that was killed is replaced."""
    from ray.cluster_utils import Cluster

    if cluster is None:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        arena.environment["RAY_ADDRESS"] = cluster.address
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1)
    return cluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--photos", type=int, default=12, help="photographs of each shard")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        trials = run_trials(Arena(Path(folder), arguments.shards, arguments.photos), arguments, console)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "flows.servers", "down"], cwd=folder, env=environment, check=True)
    show(trials, arguments.shards, console)
    sys.exit(0 if all(trial.same for trial in trials) else 1)


def show(trials: list[Trial], shards: int, console: Console) -> None:
    table = Table("victim", "trials", "killed before the end", "same bytes", "most runs needed")
    for victim in dict.fromkeys(trial.victim for trial in trials):
        mine = [trial for trial in trials if trial.victim == victim]
        unfinished = sum(trial.done_before < shards for trial in mine)
        same = f"{sum(trial.same for trial in mine)}/{len(mine)}"
        table.add_row(victim, str(len(mine)), str(unfinished), same, str(max(trial.attempts for trial in mine)))
    console.print(table)


if __name__ == "__main__":
    main()
