"""Where MLflow lives: ``MLFLOW_TRACKING_URI``, or a SQLite database and a folder below ``.dav2`` of the project."""

from __future__ import annotations

import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import locks

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATE = ".dav2"
EXPERIMENT = "dav2"
ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before a server that did not answer is asked again; longer each time."""


class TrackingError(RuntimeError):
    """MLflow cannot be used, or does not hold what was asked for; the message says what to do."""


def tracking_uri(root: Path = Path()) -> str:
    """Address of the tracking store and registry of the project at ``root``."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or f"sqlite:///{(root / STATE / 'mlflow.db').resolve()}"


def artifact_root(root: Path = Path()) -> Path:
    """Folder of the artefacts of the local store."""
    return (root / STATE / "mlflow").resolve()


def is_remote(uri: str) -> bool:
    """Whether ``uri`` is an MLflow server rather than a database."""
    return uri.startswith(("http://", "https://"))


def client(root: Path = Path()) -> MlflowClient:
    """A client of the project's store, which is made on first use.

    Importing MLflow takes seconds, and so does a new database; both are paid here, once.

    Raises:
        TrackingError: the server that ``MLFLOW_TRACKING_URI`` names does not answer.
    """
    uri = tracking_uri(root)
    if is_remote(uri):
        _wait_for(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow import MlflowClient

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # The registry finds the files of a version through the process's own tracking address, not through the client's.
    mlflow.set_tracking_uri(uri)
    if is_remote(uri):
        return MlflowClient(uri)
    # Two processes that find no database would both run its migrations, and one would fail.
    with exclusive(root, "mlflow-database"):
        return MlflowClient(uri)


def experiment(api: MlflowClient, root: Path) -> str:
    """Identity of the project's experiment, made if it is not there."""
    found = api.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            api.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    remote = is_remote(tracking_uri(root))
    location = None if remote else artifact_root(root).as_uri()
    return str(api.create_experiment(EXPERIMENT, artifact_location=location))


@contextmanager
def exclusive(root: Path, name: str) -> Iterator[None]:
    """Hold a lock among the processes of this project folder; the system frees it when its holder dies."""
    with locks.exclusive(root / STATE / "locks" / f"{name}.lock"):
        yield


def _wait_for(uri: str) -> None:
    """Ask the server for its health a few times, because a server that is restarted is back in seconds."""
    for attempt in range(ATTEMPTS):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5.0):
                return
        except urllib.error.HTTPError:
            return  # It answers; a server with authentication refuses anonymous questions.
        except OSError as error:
            if attempt + 1 == ATTEMPTS:
                raise TrackingError(
                    f"the MLflow server {uri} does not answer ({error}); start it, or unset MLFLOW_TRACKING_URI to "
                    "use the local store. What was trained is on disk, and the same command records it later"
                ) from None
            time.sleep(PAUSE * (1 + attempt))
