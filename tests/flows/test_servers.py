"""Real Prefect and MLflow servers: whose they are, what a damaged database says, and what a lost one costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from flows import processes, servers
from flows.access import Access
from flows.processes import ServerError
from tests.conftest import ROOT

MLFLOW = """
import sys
from mlflow import MlflowClient

MlflowClient("sqlite:///.dav2/mlflow.db").create_experiment("of-" + sys.argv[1])
"""
STAGE = """
import pathlib, sys, time
from prefect import flow, task
from flows.runtime import TASK, Progress, StageError, run_stage, show_table

@task(**TASK)
def work(fails: bool) -> int:
    progress = Progress("work", "steps", every=0.0)
    progress(1, 2)
    print("half", flush=True)
    sys.stdin.readline()
    progress(2, 2)
    if fails:
        raise StageError("the work went wrong")
    return 1

@flow(name="probe")
def probe(fails: bool) -> None:
    show_table("after", [{"done": work(fails)}], "shown after the server is gone")
    pathlib.Path("done").touch()

run_stage(probe, fails=len(sys.argv) > 1)
"""


def environment() -> dict[str, str]:
    """Our own, without the servers that other tests use."""
    others = {"PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI"}
    return {**{key: value for key, value in os.environ.items() if key not in others}, "PYTHONPATH": str(ROOT)}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.servers", *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )


def process_of(folder: Path, name: str) -> psutil.Process:
    return psutil.Process(json.loads((folder / ".dav2" / f"{name}.json").read_text())["pid"])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A project folder with settings, whose servers are stopped at the end."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "params.yaml", project)
    yield project
    command(project, "down")


def test_two_projects_that_start_at_once_have_servers_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        (folder / ".dav2").mkdir(parents=True)
        subprocess.run([sys.executable, "-c", MLFLOW, folder.name], cwd=folder, env=environment(), check=True)
    try:
        starting = [
            subprocess.Popen([sys.executable, "-m", "flows.servers", "up"], cwd=folder, env=environment(), text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for folder in folders
        ]  # fmt: skip
        said = [process.communicate() for process in starting]
        assert [process.returncode for process in starting] == [0, 0], said
        pages = [dict(re.findall(r"^(Prefect|MLflow) +(\S+)$", out, re.MULTILINE)) for out, _ in said]
        assert len({address for page in pages for address in page.values()}) == 4, pages
        for folder, page in zip(folders, pages, strict=True):
            body = {"max_results": 10}
            found = httpx.post(f"{page['MLflow']}/api/2.0/mlflow/experiments/search", json=body, timeout=60).json()
            names = {experiment["name"] for experiment in found["experiments"]}
            assert names - {"Default"} == {f"of-{folder.name}"}
            for other in folders:
                auth = httpx.BasicAuth(*(other / ".dav2/prefect.secret").read_text().strip().split(":"))
                answer = httpx.get(f"{page['Prefect']}/api/admin/version", auth=auth, timeout=60)
                assert answer.status_code == (200 if other == folder else 401)
        # A copy of a folder holds a copy of its records: the servers stay the first one's.
        copy = tmp_path / "copy"
        shutil.copytree(folders[0], copy)
        assert "http" not in command(copy, "status").stdout
        assert command(copy, "down").stdout == ""
        assert httpx.get(f"{pages[0]['Prefect']}/api/health", timeout=60).status_code == 200
    finally:
        for folder in folders:
            command(folder, "down")


def test_a_page_is_not_printed_where_nothing_of_ours_listens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first = servers.mlflow_page()
    assert servers.mlflow_page() == first
    record = folder / ".dav2/mlflow.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "port": processes.free_port(told["port"] + 50)}))
    again = servers.mlflow_page()
    assert httpx.get(f"{again}/health", timeout=60).status_code == 200
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{processes.free_port(18500)}")
    with pytest.raises(ServerError, match=r"MLFLOW_TRACKING_URI is .*, but nothing answers there"):
        servers.mlflow_page()


def test_a_damaged_database_is_one_line_with_the_way_out(folder: Path) -> None:
    (folder / ".dav2/prefect").mkdir(parents=True)
    (folder / ".dav2/prefect/prefect.db").write_bytes(b"no database" * 1000)
    done = command(folder, "up")
    assert done.returncode == 1
    assert re.search(r"^the Prefect database \S+ is damaged; move it away \('mv ", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("version", "status"), [("2.20.1", 200), ("", 401)])
def test_a_given_server_that_cannot_be_used_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, status: int
) -> None:
    script = f"""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response({status}); self.end_headers(); self.wfile.write(b'"{version}"')
    server = HTTPServer(("127.0.0.1", 0), Answer)
    print(server.server_port, flush=True)
    server.serve_forever()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert other.stdout is not None
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{int(other.stdout.readline())}/api")
    try:
        says = "set PREFECT_API_AUTH_STRING" if status == 401 else "is version 2.20.1, but 3"
        with pytest.raises(ServerError, match=says):
            servers.prefect_access()
    finally:
        other.kill()
        other.wait()


def test_a_string_does_not_show_in_what_is_printed() -> None:
    assert "hidden" not in repr(Access("http://x/api", "dav2:hidden"))


@pytest.mark.parametrize("loss", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("fails", [False, True], ids=["work done", "work failed"])
def test_a_server_lost_on_the_way_costs_the_page_and_not_the_stage(
    folder: Path, loss: signal.Signals, fails: bool
) -> None:
    stage = subprocess.Popen(
        [sys.executable, "-c", STAGE, *(["fails"] if fails else [])], cwd=folder, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert stage.stdout is not None
    assert stage.stdout.readline() == "half\n"
    server = process_of(folder, "prefect")
    server.send_signal(loss)
    out, said = stage.communicate("go on\n")
    server.kill()
    assert "no longer answers; the stage goes on" in said
    assert stage.returncode == (1 if fails else 0), out + said
    assert ("the work went wrong" if fails else "the work is done and kept") in said
    assert (folder / "done").exists() != fails
