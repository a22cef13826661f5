"""Who may promote: a real MLflow with a login, one person with the role and one without."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dav2.tracking import decisions, promotion, registry, store
from dav2.tracking.decisions import Decision
from dav2.tracking.store import TrackingError
from flows.team import people
from tests.answering import wait_for_answer
from tests.slurm import free_port

CHEAP = """
import werkzeug.security as security

thorough = security.generate_password_hash
security.generate_password_hash = lambda password, *_, **__: thorough(password, "pbkdf2:sha256:1")
"""
"""The server of this test hashes a password with each request, and a thousand times faster than a real one."""


@contextlib.contextmanager
def mlflow_with_a_login(folder: Path, port: int) -> Iterator[None]:
    """MLflow as the stack runs it, on SQLite and files."""
    config = folder / "auth.ini"
    config.write_text(
        f"[mlflow]\ndefault_permission = USE\ndatabase_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = dav2\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    (folder / "sitecustomize.py").write_text(CHEAP)
    own = {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": "password of dav2",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--app-name", "basic-auth", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "files"),
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, cwd=folder, stdout=log, stderr=log)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield
    finally:
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()
        server.wait()


@pytest.mark.skipif(importlib.util.find_spec("flask_wtf") is None, reason="the login of MLflow needs the extra 'team'")
@pytest.mark.timeout(1500)
def test_without_the_role_nobody_decides_and_an_alias_set_past_the_journal_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, name = free_port(), "dav2-teacher"
    (tmp_path / "admin").write_text("password of dav2")
    monkeypatch.setenv("DAV2_TEAM_SECRETS", str(tmp_path))
    monkeypatch.setenv("DAV2_MLFLOW", f"127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")

    def become(person: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", person)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"password of {person}")

    def decide(version: str, before: str | None, after: int) -> None:
        with store.told(tmp_path):
            decision = Decision("promoted", version, champion=version, previous=before, replaced=before)
            decisions.decide(api, tmp_path, name, decision, after)

    with mlflow_with_a_login(tmp_path, port):
        become("dav2")  # Who lets people in acts as the first person.
        people.into_mlflow("ada", "password of ada", promotes=True)
        people.into_mlflow("ben", "password of ben", promotes=False)
        become("ben")
        api = store.client(tmp_path)
        api.create_registered_model(name)
        for _ in range(2):
            api.create_model_version(name, "s3://none/none")
        # What is forced is the same write.
        with pytest.raises(TrackingError, match=r"refuses ben .*promoting and rolling back is a role of its own"):
            decide("1", None, 0)
        become("ada")
        decide("1", None, 0)
        decide("2", "1", 1)
        become("ben")
        with pytest.raises(TrackingError, match="refuses ben"):
            promotion.rollback(name, tmp_path)
        api.set_registered_model_alias(name, "champion", "1")
        assert str(registry.resolve(api, f"{name}@champion").version) == "2"
        become("ada")
        assert promotion.rollback(name, tmp_path) == ("1", "2")
        assert [(entry["action"], entry["by"]) for entry in promotion.history(api, name)] == [
            ("promoted", "ada"), ("promoted", "ada"), ("rolled back", "ada")
        ]  # fmt: skip
