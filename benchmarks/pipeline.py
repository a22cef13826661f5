"""Wall time and memory of every stage of ``dvc repro`` in a fresh clone, and the share spent outside dav2's own work.

Protocol: the committed state is cloned into a temporary folder, the sample is pulled, and ``dvc repro`` runs once with
nothing cached and no server running. Memory is the sum of the resident sets of ``dvc`` and all its descendants, every
0.2 s; the Prefect server, which outlives the run, is counted too. Own work is the time inside the stages' tasks, as the
Prefect server recorded it, less the import time of the tools that tasks load (Great Expectations, MLflow, DeepSpeed),
measured in the same session by importing each in a process of its own. Everything else is outside: interpreters,
imports, servers, DVC. Then ``dvc repro`` runs again, with nothing to do.

    python benchmarks/pipeline.py [--scale sample] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
STAGE = re.compile(r"Running stage '(?P<name>[^']+)'")
TOOLS = {"great_expectations": "validate", "mlflow": "record|register", "deepspeed": "train"}


@dataclass
class Stage:
    name: str
    begin: float
    end: float = 0.0
    peak: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass
class Watch:
    """Samples the resident memory of a process tree, for the stage that is running."""

    process: psutil.Process
    state: Path
    stages: list[Stage] = field(default_factory=list)
    peak: int = 0

    def sample(self) -> None:
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            total = sum(map(_resident, [self.process, *self.process.children(recursive=True), *self._servers()]))
            self.peak = max(self.peak, total)
            if self.stages:
                self.stages[-1].peak = max(self.stages[-1].peak, total)
            time.sleep(0.2)

    def _servers(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for record in self.state.glob("*.json"):
            try:
                leader = psutil.Process(json.loads(record.read_text())["pid"])
                found += [leader, *leader.children(recursive=True)]
            except (psutil.Error, ValueError, KeyError):
                continue
        return found


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def reproduce(folder: Path, environment: dict[str, str]) -> tuple[Watch, float]:
    """Run ``dvc repro`` in ``folder``; returns what was watched and the wall time in seconds."""
    begin = time.monotonic()
    dvc = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watch = Watch(psutil.Process(dvc.pid), folder / ".dav2")
    threading.Thread(target=watch.sample, daemon=True).start()
    assert dvc.stdout is not None
    for line in dvc.stdout:
        print(line, end="", flush=True)
        match = STAGE.search(line)
        now = time.monotonic()
        if match:
            if watch.stages:
                watch.stages[-1].end = now
            watch.stages.append(Stage(match["name"], now))
    wall = time.monotonic() - begin
    if watch.stages:
        watch.stages[-1].end = begin + wall
    if dvc.wait():
        sys.exit("dvc repro failed")
    return watch, wall


ASK = """
import json
from flows.servers import prefect_access
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
access = prefect_access()
with temporary_settings({PREFECT_API_URL: access.url, PREFECT_API_AUTH_STRING: access.auth}):
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(limit=200)
print(json.dumps({run.name: run.total_run_time.total_seconds() for run in runs}))
"""


def task_seconds(folder: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds inside tasks, by task run name, as the Prefect server recorded them."""
    done = subprocess.run([sys.executable, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"the Prefect server cannot be asked: {done.stderr[-2000:]}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def import_seconds(module: str) -> float:
    """Median of three imports, each in a new interpreter, less the bare interpreter."""

    def once(code: str) -> float:
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.monotonic() - begin

    return sorted(once(f"import {module}") for _ in range(3))[1] - sorted(once("") for _ in range(3))[1]


def outside_seconds(tasks: dict[str, float], wall: float) -> float:
    """Wall time less the tasks, plus the tools' imports that happened inside tasks."""
    loading = 0.0
    for module, pattern in TOOLS.items():
        loading += import_seconds(module) * sum(1 for name in tasks if re.match(pattern, name))
    return wall - sum(tasks.values()) + loading


def show(watch: Watch, wall: float, again: float, outside: float) -> None:
    table = Table(title="dvc repro, fresh clone")
    table.add_column("stage")
    for column in ("seconds", "peak MiB"):
        table.add_column(column, justify="right")
    for stage in watch.stages:
        table.add_row(stage.name, f"{stage.seconds:.1f}", f"{stage.peak / 2**20:.0f}")
    table.add_section()
    table.add_row("all", f"{wall:.1f}", f"{watch.peak / 2**20:.0f}")
    table.add_row("again, nothing to do", f"{again:.1f}", "")
    table.add_row(f"outside own work ({outside / wall:.0%})", f"{outside:.1f}", "")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="sample")
    parser.add_argument("--keep", type=Path, help="clone here and leave it, instead of a temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary) / "dav2"
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment |= {"PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)

        def run(*command: str) -> None:
            subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, check=True)

        if given.scale != "sample":
            run("dav2.cli", "scale", given.scale)
        run("dvc", "pull", "--quiet", "data.dvc")
        try:
            watch, wall = reproduce(folder, environment)
            begin = time.monotonic()
            run("dvc", "repro", "--quiet")
            again = time.monotonic() - begin
            show(watch, wall, again, outside_seconds(task_seconds(folder, environment), wall))
        finally:
            run("flows.servers", "down")


if __name__ == "__main__":
    main()
