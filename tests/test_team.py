"""The team's stack: a project works against it while every service is killed once, and a backup brings it back."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from dav2.documents import RegisteredRecord
from dav2.params import load
from dav2.tracking import registry
from flows import processes
from flows.team import health, places, settings
from flows.team.settings import TeamError
from tests.conftest import ROOT, Project, clone
from tests.slurm import free_port
from tests.tracking import builders

WANTED = {"caddy": "apt-get install caddy", "postgres": "apt-get install postgresql", "weed": "the extra 'team'"}
SERVICES = ("postgres", "store", "mlflow", "prefect", "worker", "proxy")
PATIENCE = 300.0


def lacking() -> str:
    """What the stack needs and this machine lacks; empty where there is all."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    missing = [name for name in ("caddy", "weed") if not shutil.which(name, path=path)]
    missing += [] if list(Path("/usr/lib/postgresql").glob("*/bin/postgres")) else ["postgres"]
    found = [f"{name} ({WANTED[name]})" for name in missing]
    return ", ".join(found + [each for each in ("psycopg2", "flask_wtf") if importlib.util.find_spec(each) is None])


needs_services = pytest.mark.skipif(bool(lacking()), reason=f"the stack needs {lacking()}")


@dataclass(frozen=True)
class Stack:
    """A stack of processes in a folder of its own."""

    folder: Path
    first_port: int

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        own = {"DAV2_TEAM": str(self.folder), "DAV2_TEAM_PORT": str(self.first_port), "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **own}
        command = [sys.executable, "-m", "flows.team", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if check and done.returncode:
            pytest.fail(f"{' '.join(arguments)}: {done.stdout}\n{done.stderr}\n{self.logs()}")
        return done

    def logs(self) -> str:
        logs = [self.folder / "supervisor.log", *sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs if log.exists())

    def variables(self) -> dict[str, str]:
        lines = (self.folder / "dav2.env").read_text().splitlines()
        return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}

    def main_processes(self) -> dict[str, psutil.Process]:
        """Service → the process that the supervisor started for it."""
        supervisor = psutil.Process(int((self.folder / "supervisor.pid").read_text()))
        found = {}
        for child in supervisor.children():
            line = " ".join(child.cmdline())
            marks = {"postgres": "bin/postgres", "store": "weed server", "mlflow": "mlflow server",
                     "prefect": "prefect server", "worker": "prefect worker", "proxy": "caddy run"}  # fmt: skip
            found |= {name: child for name, mark in marks.items() if mark in line}
        return found


@pytest.fixture
def stacks() -> Iterator[list[Stack]]:
    """Two empty stacks; ended and removed when the test ends."""
    made = []
    for _ in range(2):
        folder = Path(tempfile.mkdtemp(prefix="team-"))
        folder.chmod(0o755)  # PostgreSQL, which does not run as root, has to reach its data in it.
        made.append(Stack(folder, first_port()))
    yield made
    for stack in made:
        stack.run("down")
        shutil.rmtree(stack.folder, ignore_errors=True)


def first_port() -> int:
    """The first of as many free ports as a stack takes, below those that the system hands out to clients."""
    while True:
        port = random.randrange(11000, 31000)
        if all(processes.free_port(each) == each for each in range(port, port + places.PORTS)):
            return port


def shortened(project: Project) -> None:
    """Settings of the pipeline's least part that ends in a registered model, its shards and labels in the store."""
    project.run("dav2", "scale", "tiny")
    path = project.folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    del tree["sources"]["vkitti2"], tree["sources"]["views"], tree["benchmarks"]["nyu"]
    tree |= {"metric": {}, "marigold": {}, "codecs": {}, "licences": {"hypersim": "Apache-2.0"}}
    tree["students"] = {"vitt": {**tree["students"]["vitt"], "sources": ["photos"]}}
    tree["evaluate"] |= {"benchmarks": {}, "models": ["teacher", "student-vitt"], "robustness": [], "resolutions": []}
    tree["teacher"]["sources"] = ["hypersim"]
    tree["pseudo_label"]["sources"] = ["photos"]
    tree["ingest"]["store"] = "s3://dav2/shards"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def kill_each_once(stack: Stack, killed: list[str], stop: threading.Event) -> None:
    """SIGKILL one service after the other, each when all are well again."""
    for name in SERVICES:
        deadline = time.monotonic() + PATIENCE
        while stack.run("status", check=False).returncode or name not in stack.main_processes():
            if stop.wait(0.5) or time.monotonic() > deadline:
                return
        stack.main_processes()[name].kill()
        killed.append(name)
        if stop.wait(5.0):
            return


@needs_services
@pytest.mark.timeout(2400)
def test_a_project_works_against_the_stack_while_every_service_is_killed_once(
    stacks: list[Stack], tmp_path: Path
) -> None:
    first = stacks[0]
    first.run("up")
    assert "well" in first.run("status").stdout
    variables = first.variables()
    project = clone(tmp_path / "dav2")
    shortened(project)
    killed: list[str] = []
    stop = threading.Event()
    killing = threading.Thread(target=kill_each_once, args=(first, killed, stop))
    killing.start()
    # A stage that a kill stops after all goes on with the same command.
    for _ in range(4):
        done = project.run("dvc", "repro", "register", check=False, **variables)
        if not done.returncode:
            break
    assert not done.returncode, f"{done.stdout}\n{done.stderr}\n{first.logs()}"
    killing.join()
    assert killed == list(SERVICES)
    registered = RegisteredRecord.read(project.folder / "artifacts/registered.json")
    assert [model.version for model in registered.models] == ["1", "1"]
    assert "dav2-student-vitt" in project.run("dav2", "models", **variables).stdout
    project.run("dvc", "push", "--remote", "cluster", "artifacts/models/teacher", **variables)


@needs_services
@pytest.mark.timeout(2400)
def test_a_backup_brings_an_empty_stack_to_serve_the_same_model(
    stacks: list[Stack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = stacks
    params = load(ROOT / "params.yaml")
    project = Project(tmp_path / "project")
    project.folder.mkdir()
    builders.write_project(project.folder, params)
    first.run("up")
    with monkeypatch.context() as patch:
        for name, value in first.variables().items():
            patch.setenv(name, value)
        registry.register("teacher", project.folder, params, builders.scores(project.folder, "teacher", 0.8))
    saved = tmp_path / "backup"
    first.run("backup", str(saved))
    first.run("down")
    half = tmp_path / "half"
    shutil.copytree(saved, half)
    (half / "mlflow.dump").unlink()
    refused = second.run("restore", str(half), check=False)
    assert refused.returncode == 1 and "mlflow.dump is missing" in refused.stderr
    second.run("restore", str(saved))
    second.run("up")
    serve(project, "dav2-teacher", second.variables())
    refused = second.run("restore", str(saved), check=False)
    assert refused.returncode == 1 and "is in use" in refused.stderr


def test_a_door_without_a_login_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAV2_TEAM_SECRETS", str(tmp_path))
    monkeypatch.setenv("DAV2_DOOR", "0.0.0.0")
    hashed = "$2a$14$" + "a" * 53
    for text in ("", "ada\n", "ada secret\n", f"ada {hashed}\nben\n"):
        (tmp_path / "people").write_text(text)
        with pytest.raises(TeamError, match="people"):
            settings.door()
    (tmp_path / "people").write_text(f"ada {hashed}\n")
    assert settings.door() == "0.0.0.0"


def test_a_full_disk_is_what_is_wrong_with_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert health.room(tmp_path) == ""
    monkeypatch.setattr(health, "LEAST_ROOM", 2**70)
    assert "its disk is full" in health.room(tmp_path)


def serve(project: Project, name: str, variables: dict[str, str]) -> None:
    """Serve version 1 of a model from the registry and ask it for the depth of a photograph."""
    port = free_port()
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    command = [mlflow, "models", "serve", "-m", f"models:/{name}/1", "--env-manager", "local", "-p", str(port)]
    server = subprocess.Popen(command, cwd=project.folder, env={**project.environment, **variables})
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        photograph = base64.b64encode(next((ROOT / "data").rglob("*.jpg")).read_bytes()).decode()
        rows = {"dataframe_split": {"columns": ["image"], "data": [[photograph]]}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", json.dumps(rows).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            assert json.load(answer)["predictions"][0]["depth_png"]
    finally:
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()
        server.wait()
