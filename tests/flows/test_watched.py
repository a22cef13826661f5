"""Who is told of failures, what new data start, and how heavy stages wait, on the real Prefect server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import arrivals, heavy, notices
from flows.access import Access
from flows.processes import ServerError
from tests.conftest import PrefectServer, Project

PATIENCE = 180.0
STAGE = """
import sys
from prefect import flow
from flows.runtime import StageError, run_stage

@flow(name={name!r})
def stage() -> None:
    print("begun", flush=True)
    if {waits}:
        sys.stdin.readline()
    if {fails}:
        raise StageError("the gate for real data failed")

run_stage(stage)
"""


class Receiver:
    """A webhook of this machine that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        texts = self.texts

        class Handler(BaseHTTPRequestHandler):
            """Takes a POST."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                texts.append(json.loads(body)["text"] if isinstance(body, str) else body["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/told"

    def wait_for(self, words: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while not (found := [text for text in self.texts if words in text]):
            assert time.monotonic() < deadline, f"nobody was told of {words!r}; told: {self.texts}"
            time.sleep(0.2)
        return found[0]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def access(prefect_server: PrefectServer) -> Access:
    return Access(prefect_server.PREFECT_API_URL, prefect_server.PREFECT_API_AUTH_STRING)


def start(
    project: Project, server: PrefectServer, name: str, *, waits: bool = False, fails: bool = False
) -> subprocess.Popen[str]:
    script = STAGE.format(name=name, waits=waits, fails=fails)
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=project.folder, env={**project.environment, **server.environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until the stage's work has begun."""
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"


def test_a_webhook_is_told_of_a_failed_gate_and_of_a_killed_stage(
    project: Project, prefect_server: PrefectServer, access: Access, receiver: Receiver
) -> None:
    notices.register(access, receiver.url)
    notices.register(access, receiver.url, silence=timedelta(seconds=10))
    try:
        killed = start(project, prefect_server, "train", waits=True)
        failed = start(project, prefect_server, "probe-gate", fails=True)
        failed.communicate()
        begun(killed)
        text = receiver.wait_for("the gate for real data failed")
        assert "'probe-gate' failed" in text and project.folder.name in text
        killed.kill()
        killed.communicate()
        assert "'train'" in receiver.wait_for("no sign of life")
        assert len([text for text in receiver.texts if "probe-gate" in text]) == 1
    finally:
        notices.register(access, None)
    assert prefect_server.post("automations/filter", {}) == []


def test_the_address_of_a_webhook_is_kept_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    monkeypatch.setenv("DAV2_NOTIFY", str(path))
    assert notices.address() is None
    for text, mode, why in (
        ("https://example.org/secret", 0o644, "chmod 600"),
        ("file:///etc/passwd", 0o600, "must hold one line"),
        ("https://example.org/a https://b", 0o600, "must hold one line"),
    ):
        path.write_text(text)
        path.chmod(mode)
        with pytest.raises(ServerError, match=why) as raised:
            notices.address()
        assert "secret'" not in str(raised.value)
    path.write_text("https://example.org/secret\n")
    assert notices.address() == "https://example.org/secret"


def test_heavy_stages_of_two_projects_take_turns(
    project: Project, prefect_server: PrefectServer, access: Access
) -> None:
    heavy.set_limit(access, 1)
    first = second = None
    try:
        first = start(project, prefect_server, "train", waits=True)
        begun(first)
        second = start(project, prefect_server, "evaluate")
        light = start(project, prefect_server, "probe-light")
        light.communicate()
        assert light.returncode == 0
        wait_for_log(prefect_server, "waiting for a place", 2)
        assert second.poll() is None
        assert prefect_server.get(f"v2/concurrency_limits/{heavy.LIMIT}")["active_slots"] == 1
        first.send_signal(signal.SIGTERM)  # Ended in order, it gives its place back at once.
        first.communicate()
        begun(second)
        second.communicate()
        assert second.returncode == 0
        assert prefect_server.get(f"v2/concurrency_limits/{heavy.LIMIT}")["active_slots"] == 0
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
        heavy.set_limit(access, 0)
    heavy.set_limit(access, 0)  # Taking away what is not there is no error.


def wait_for_log(server: PrefectServer, words: str, times: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        logs = server.post("logs/filter", {"sort": "TIMESTAMP_DESC", "limit": 100})
        if sum(words in each["message"] for each in logs) >= times:
            return
        assert time.monotonic() < deadline, [each["message"] for each in logs]
        time.sleep(0.5)


def test_data_that_arrived_are_built_once_when_they_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dav2").mkdir()
    folder = tmp_path / "photos"

    def looks() -> list[str]:
        return arrivals.look({"photos": arrivals.listing("photos"), "none": arrivals.listing("none")})

    assert looks() == [] and looks() == [], "nothing is there"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"1")
    assert looks() == [], "it may still be growing"
    (folder / "two.jpg").write_bytes(b"2")
    assert looks() == []
    assert looks() == ["photos"] == looks(), "until it is built"
    arrivals.built({"photos": arrivals.listing("photos")})
    assert looks() == [] and looks() == []
    (folder / "one.jpg").write_bytes(b"3")
    os.utime(folder / "one.jpg", (1, 1))
    assert looks() == [] and looks() == ["photos"]
    arrivals.SEEN.write_text("half")
    assert looks() == [] and looks() == ["photos"], "without a record all is new, and DVC decides"


def test_a_look_at_new_data_starts_the_rebuild_once(project: Project, prefect_server: PrefectServer) -> None:
    script = """
import sys
from flows.arrivals import arrivals
from flows.rebuild import rebuild
from flows.runtime import run_stage
from prefect import flow

@flow(name="looks")
def looks() -> None:
    print([bool(arrivals(["settings"])) for _ in range(3)], flush=True)

run_stage(looks)
"""
    done = project.run(sys.executable, "-c", script, **prefect_server.environment)
    assert "[False, True, False]" in done.stdout
