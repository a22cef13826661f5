"""Kills of everything in a team's stack, one after the other, while work is being recorded in it.

``python -m benchmarks.team_kills --hits 60`` starts a stack of processes in a folder of its own and a client that, over
and over, logs a run in MLflow, writes an object, runs a stage that reports to Prefect, and starts a run on the worker.
Meanwhile services are killed by SIGKILL, drawn evenly, each when all are well again. The client repeats what failed,
as a stage that is run again does. At the end: everything that the client was told is kept must be there, and once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
MARKS = {
    "postgres": "bin/postgres", "store": "weed server", "mlflow": "mlflow server", "prefect": "prefect server",
    "worker": "prefect worker", "proxy": "caddy run",
}  # fmt: skip
PATIENCE = 240.0
EXPERIMENT, BUCKET, LIMIT = "kills", "dav2", "kills"


@dataclass
class Work:
    """What the client did: numbers that a service said are kept, and how often it had to try again."""

    kept: dict[str, list[int]] = field(default_factory=lambda: {"mlflow": [], "store": [], "prefect": []})
    again: Counter[str] = field(default_factory=Counter)


def team(folder: Path, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the stack in ``folder``."""
    own = {"DAV2_TEAM": str(folder), "DAV2_TEAM_PORT": str(port), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.team", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True)


def processes_of(folder: Path) -> dict[str, psutil.Process]:
    """Service → its process, of those that run."""
    found = {}
    for child in psutil.Process(int((folder / "supervisor.pid").read_text())).children():
        line = " ".join(child.cmdline())
        found |= {name: child for name, mark in MARKS.items() if mark in line}
    return found


def persist(number: int, work: Work, name: str, once: Callable[[int], None], stop: threading.Event) -> None:
    """Do one piece until the service says that it is kept."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            once(number)
        except Exception as error:  # Whatever a killed service makes of a request: it is asked again.
            if stop.is_set():
                return
            work.again[f"{name}: {type(error).__name__}"] += 1
            time.sleep(1.0)
        else:
            work.kept[name].append(number)
            return
    raise SystemExit(f"{name} did not come back in {PATIENCE:.0f} s")


def in_mlflow(number: int) -> None:
    """A run with a metric and a file, made only if no earlier try made it."""
    from mlflow import MlflowClient

    api = MlflowClient()
    found = api.get_experiment_by_name(EXPERIMENT)
    home = found.experiment_id if found else api.create_experiment(EXPERIMENT)
    runs = api.search_runs([home], f"tags.number = '{number}'")
    run = runs[0] if runs else api.create_run(home, tags={"number": str(number)})
    api.log_metric(run.info.run_id, "number", number, step=0)
    api.log_dict(run.info.run_id, {"number": number}, "number.json")


def in_store(number: int) -> None:
    """An object."""
    import boto3

    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"kills/{number}", Body=str(number).encode() * 1000)


def in_prefect(number: int) -> None:
    """A run of a deployment, which the worker takes; started once however often it is asked for."""
    from prefect.deployments import run_deployment

    run_deployment("arrivals/on-arrival", parameters={"targets": ["settings"], "params_path": "absent.yaml"},
                   timeout=0, idempotency_key=f"kills-{number}", tags=["kills"], as_subflow=False)  # fmt: skip


PIECES = {"mlflow": in_mlflow, "store": in_store, "prefect": in_prefect}


def client(work: Work, stop: threading.Event) -> None:
    """Piece after piece, until ``stop``."""
    number = 0
    while not stop.is_set():
        for name, once in PIECES.items():
            persist(number, work, name, once, stop)
        number += 1
        stop.wait(2.0)


def kill(folder: Path, port: int, hits: int, until: float, seed: int) -> Counter[str]:
    """Kill services until there are ``hits``, or the time is over; returns how often each was hit."""
    draw, done = random.Random(seed), Counter[str]()
    names = [name for _ in range(hits // len(MARKS) + 1) for name in draw.sample(sorted(MARKS), len(MARKS))]
    for name in names[:hits]:
        while team(folder, port, "status").returncode or name not in processes_of(folder):
            if time.monotonic() > until:
                return done
            time.sleep(1.0)
        time.sleep(draw.uniform(0.0, 3.0))
        if time.monotonic() > until:
            return done
        processes_of(folder)[name].kill()
        done[name] += 1
        print(f"{sum(done.values()):3}  killed {name}", flush=True)
    return done


def faults(work: Work) -> list[str]:
    """What was said to be kept and is not, or is there twice."""
    import boto3
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    api = MlflowClient()
    home = api.get_experiment_by_name(EXPERIMENT).experiment_id
    runs = Counter(int(run.data.tags["number"]) for run in api.search_runs([home], max_results=5000))
    objects = boto3.client("s3")
    with get_client(sync_client=True) as prefect:
        chosen = FlowRunFilter(tags=FlowRunFilterTags(all_=["kills"]))
        keys = Counter(run.idempotency_key for run in prefect.read_flow_runs(flow_run_filter=chosen, limit=200))
    found = [f"MLflow holds run {n} {runs[n]} times" for n in work.kept["mlflow"] if runs[n] != 1]
    for number in work.kept["store"]:
        body = objects.get_object(Bucket=BUCKET, Key=f"kills/{number}")["Body"].read()
        found += [] if body == str(number).encode() * 1000 else [f"object {number} is not what was written"]
    found += [
        f"Prefect holds run {n} {keys[f'kills-{n}']} times" for n in work.kept["prefect"] if keys[f"kills-{n}"] != 1
    ]
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hits", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=60.0, help="no kill after so many")
    parser.add_argument("--port", type=int, default=19443)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="team-kills-"))
    folder.chmod(0o755)
    try:
        up = team(folder, given.port, "up")
        if up.returncode:
            sys.exit(up.stdout + up.stderr)
        lines = (folder / "dav2.env").read_text().splitlines()
        os.environ.update({name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)})
        os.environ |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
        work, stop = Work(), threading.Event()
        working = threading.Thread(target=client, args=(work, stop))
        working.start()
        hits = kill(folder, given.port, given.hits, time.monotonic() + 60 * given.minutes, given.seed)
        while team(folder, given.port, "status").returncode:
            time.sleep(1.0)
        time.sleep(10.0)
        stop.set()
        working.join()
        found = faults(work)
        kept = {name: len(numbers) for name, numbers in work.kept.items()}
        print(
            json.dumps({"hits": dict(hits), "kept": kept, "tried again": dict(work.again), "faults": found}, indent=1)
        )
        return int(bool(found))
    finally:
        team(folder, given.port, "down")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
