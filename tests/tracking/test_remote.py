"""A team's registry: a real MLflow server that keeps database and files for itself, used from two project folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dav2
from dav2.params import Params
from dav2.tracking import promotion, registry, store
from dav2.tracking.store import TrackingError
from tests.answering import wait_for_answer
from tests.tracking import builders

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
