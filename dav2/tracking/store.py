"""Where MLflow lives: ``MLFLOW_TRACKING_URI``, or a SQLite database and a folder below ``.dav2`` of the project."""

from __future__ import annotations

import errno
import getpass
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import locks
from dav2.files import write_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

STATE = ".dav2"
EXPERIMENT = "dav2"
FAILED = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
REFUSED = ("PERMISSION_DENIED", "UNAUTHENTICATED")
FULL = (errno.ENOSPC, errno.EDQUOT)


class TrackingError(RuntimeError):
    """MLflow cannot be used, or does not hold what was asked for; the message says what to do."""


class UnavailableError(TrackingError):
    """MLflow cannot be used now: it does not answer, refuses, or its database or disk is at fault. Later it may."""


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
        UnavailableError: the server that ``MLFLOW_TRACKING_URI`` names does not answer, or the database is damaged.
    """
    uri = tracking_uri(root)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    from dav2.tracking.patience import PatientClient, wait_for

    if is_remote(uri):
        try:
            wait_for(uri)
        except OSError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise UnavailableError(
                    f"the MLflow server {uri} is not trusted ({error}); see whether this machine's clock is right "
                    "('date -u') and SSL_CERT_FILE names whom to trust (docs/team.md)"
                ) from None
            raise UnavailableError(
                f"the MLflow server {uri} does not answer ({error}); start it, or unset MLFLOW_TRACKING_URI to "
                "use the local store. What was trained is on disk, and the same command records it later"
            ) from None
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It writes a traceback for each database error that it also raises; the error says what there is to say.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # The registry finds the files of a version through the process's own tracking address, not through the client's.
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if given is None:  # It also sets the variable, which would then name this project's store for every other project.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    if is_remote(uri):
        return PatientClient(uri)
    # Two processes that find no database would both run its migrations, and one would fail.
    with told(root), exclusive(root, "mlflow-database"):
        api = PatientClient(uri)
        api.get_experiment_by_name(EXPERIMENT)  # A damaged database is found here, before anything is done with it.
        return api


def person() -> str:
    """Who decides: the name that a server with passwords knows, or this machine's."""
    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()


@contextmanager
def told(root: Path, needs: str = "") -> Iterator[None]:
    """Failures of MLflow, its database and its disk become one line that says what to do; mistakes of ours do not.

    Args:
        needs: what is about to be written, for the message of a full disk: ``"120 MB for the model"``.

    Raises:
        UnavailableError: MLflow does not answer or refuses, its database is damaged, or a disk is full.
    """
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason = _reason(root, error)
        if reason is None:
            raise
        raise UnavailableError(reason) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UnavailableError(_database_reason(root, error)) from None
    except requests.exceptions.RequestException as error:
        raise UnavailableError(f"the MLflow server {tracking_uri(root)} failed ({error}); try again later") from None
    except OSError as error:
        path = _path_without_room(error)
        if path is None:
            raise
        raise UnavailableError(_full(path or artifact_root(root), needs)) from None


def is_outage(error: Exception) -> bool:
    """Whether ``error`` says that the service failed, not that something is not there."""
    from requests.exceptions import RequestException

    if isinstance(error, RequestException):
        return error.response is None or error.response.status_code >= 500
    if isinstance(error, OSError):
        return _path_without_room(error) is not None
    return getattr(error, "error_code", "") in (*FAILED, *REFUSED) or isinstance(error.__cause__, RequestException)


def _path_without_room(error: OSError) -> str | None:
    """The file that a full disk did not take, empty if the error does not name it; ``None`` for other errors."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):  # Of a whole folder.
        told = [str(target) for _, target, why in error.args[0] if any(f"[Errno {code}]" in str(why) for code in FULL)]
        return told[0] if told else None
    if error.errno not in FULL:
        return None
    return str(error.filename2 or error.filename or "")  # A copy names its source first.


def _full(path: object, needs: str = "") -> str:
    return f"the disk is full: {path} could not be written{f' ({needs})' if needs else ''}; free some, then repeat"


def _reason(root: Path, error: MlflowException) -> str | None:
    """What to tell about an error of MLflow; ``None`` if it is no failure of the service."""
    import sqlalchemy.exc

    cause = error.__cause__ or error.__context__
    if isinstance(cause, sqlalchemy.exc.SQLAlchemyError):
        return _database_reason(root, cause)
    if isinstance(cause, OSError) and (path := _path_without_room(cause)) is not None:
        return _full(path or artifact_root(root))
    where, line = tracking_uri(root), str(error.message).partition("\n")[0][:300]
    if error.error_code in REFUSED:
        return (
            f"MLflow at {where} refuses {person()} ({line}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD "
            "to those of somebody who may do this: promoting and rolling back is a role of its own (docs/team.md)"
        )
    if error.error_code in FAILED:
        return f"MLflow at {where} failed ({line}); nothing more was done, and the same command goes on later"
    return None


def _database_reason(root: Path, error: Exception) -> str:
    uri = tracking_uri(root)
    line = str(getattr(error, "orig", None) or error).partition("\n")[0][:300]
    path = uri.removeprefix("sqlite:///")
    if "full" in line or "disk I/O" in line:
        return _full(path)
    if "locked" in line:
        return f"the MLflow database {path} is in use by another process ({line}); try again"
    if not uri.startswith("sqlite:"):
        return f"the MLflow database {uri.rpartition('@')[2]} failed ({line}); the same command goes on later"
    if "unable to open" in line or "readonly" in line:
        return f"the MLflow database {path} cannot be opened ({line}); check who may read and write it and its folder"
    return (
        f"the MLflow database {path} is damaged ({line}); put a backup in its place, or move it away "
        f"('mv {path} {path}.damaged'): then a new one is made, and 'dvc repro -f register' registers the models again"
    )


def experiment(api: MlflowClient, root: Path) -> str:
    """Identity of the project's experiment, made if it is not there."""
    from mlflow.exceptions import MlflowException

    found = api.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(api.create_experiment(EXPERIMENT, artifact_location=artifact_location(root)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = api.get_experiment_by_name(EXPERIMENT)  # Somebody else was as quick.
    if found.lifecycle_stage == "deleted":
        api.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def artifact_location(root: Path) -> str | None:
    """Where a new experiment keeps its files: this folder's own store, or ``None`` for what a server has."""
    return None if is_remote(tracking_uri(root)) else artifact_root(root).as_uri()


def place(root: Path) -> str:
    """A random name of this project folder, made once: host names and process numbers are given more than once."""
    path = root / STATE / "place"
    with exclusive(root, "place"):
        if not path.is_file():
            write_whole(path, secrets.token_hex(16))
        return path.read_text("utf-8")


@contextmanager
def exclusive(root: Path, name: str) -> Iterator[None]:
    """Hold a lock among the processes of this project folder; the system frees it when its holder dies."""
    with locks.exclusive(root / STATE / "locks" / f"{name}.lock"):
        yield
