"""A team's registry: a real MLflow server that keeps database and files for itself, used from two project folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import dav2
from dav2.params import Params
from dav2.tracking import decisions, promotion, registry, store
from dav2.tracking.store import TrackingError
from tests.answering import wait_for_answer
from tests.forkserver import crowd
from tests.tracking import builders
from tests.tracking.killing import killed

NAME = "dav2-teacher"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server's own folder; ``MLFLOW_TRACKING_URI`` names its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_answer(f"{address}/health", process, folder / "log")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield folder
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def test_two_people_share_a_server(remote: Path, template: Path, tmp_path: Path, params: Params) -> None:
    """One trains, registers and promotes; the other, with nothing but the address, loads, judges and goes back."""
    trainer, colleague = tmp_path / "trainer", tmp_path / "colleague"
    shutil.copytree(template, trainer)
    colleague.mkdir()
    shutil.copy(trainer / "params.yaml", colleague)

    registry.register("teacher", trainer, params, builders.scores(trainer, "teacher", 0.8))
    assert promotion.promote(NAME, colleague, params).promoted
    builders.write_run(trainer, params, "teacher", 11)
    registry.register("teacher", trainer, params, builders.scores(trainer, "teacher", 0.85))

    with ThreadPoolExecutor(2) as both:
        attempts = [both.submit(promotion.promote, NAME, folder, params) for folder in (trainer, colleague)]
    errors = [error for attempt in attempts if (error := attempt.exception()) is not None]
    assert len(errors) == 1 and isinstance(errors[0], TrackingError)
    assert "is running" in str(errors[0]) or "is the champion already" in str(errors[0])

    aliases = store.client(colleague).get_registered_model(NAME).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {
        "candidate": "2",
        "champion": "2",
        "previous": "1",
    }
    rgb = np.random.default_rng(0).integers(0, 255, (84, 112, 3), dtype=np.uint8)
    here = dav2.load(trainer / "artifacts" / "models" / "teacher", "cpu").infer_image(rgb)
    np.testing.assert_array_equal(dav2.load(f"models:/{NAME}@champion", "cpu").infer_image(rgb), here)
    assert promotion.rollback(NAME, colleague) == ("1", "2")
    assert list(remote.rglob("model.safetensors")), "the server keeps the weights, not the trainer's folder"


def _registered(template: Path, tmp_path: Path, params: Params) -> Path:
    """A trainer's folder; on the server version 1 is replaced by 2, and 3 is the candidate."""
    trainer = tmp_path / "trainer"
    shutil.copytree(template, trainer)
    builders.register_three(trainer, params)
    return trainer


def _act(action: str, root: Path, params: Params) -> Any:
    return promotion.rollback(NAME, root) if action == "rollback" else promotion.promote(NAME, root, params)


def _race(action: str, root: Path, params: Params) -> str:
    try:
        _act(action, root, params)
    except TrackingError as error:
        return str(error)
    return action


def test_on_a_server_kills_and_crowds_leave_one_decision_and_what_follows_from_it(
    remote: Path, template: Path, tmp_path: Path, params: Params
) -> None:
    trainer = _registered(template, tmp_path, params)
    api = store.client(trainer)
    before = len(promotion.history(api, NAME))
    # Everything of a rollback but its last alias and what comes after; the next reader finishes it.
    assert killed(partial(_act, "rollback", trainer, params), 3)
    assert decisions.settle(api, NAME) is not None
    assert _act("rollback", trainer, params) == ("1", "2")
    aliases = {alias: str(version) for alias, version in api.get_registered_model(NAME).aliases.items()}
    assert aliases == {"candidate": "3", "champion": "1"}
    assert [entry["action"] for entry in promotion.history(api, NAME)][before:] == ["rolled back"]

    told = crowd([partial(_race, "promote", tmp_path / f"actor-{index}", params) for index in range(4)])
    assert told.count("promote") == 1, told
    assert all("is running" in line or "is the champion already" in line for line in told if line != "promote")
    assert [entry["action"] for entry in promotion.history(api, NAME)][before + 1 :] == ["promoted"]
    assert str(api.get_registered_model(NAME).aliases["champion"]) == "3"


def test_an_answer_that_fails_is_never_taken_for_nothing_decided(
    remote: Path, template: Path, tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = _registered(template, tmp_path, params)
    real = os.environ["MLFLOW_TRACKING_URI"]
    before = promotion.history(store.client(trainer), NAME)

    class Failing(BaseHTTPRequestHandler):
        """Passes everything on to the real server but questions for a run, which holds the decisions."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            request = urllib.request.Request(real + self.path, body, dict(self.headers), method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            if "/runs/get" in self.path:
                status, content = 500, b"{}"
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as proxy:
        Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        for action in ("promote", "rollback"):
            with pytest.raises(TrackingError, match=r"failed .*the same command goes on later"):
                _act(action, trainer, params)
        with pytest.raises(TrackingError, match="failed"):
            registry.champion_scores("teacher", trainer, params)
        proxy.shutdown()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", real)
    assert promotion.history(store.client(trainer), NAME) == before
