"""Who may use the team's stack, and who may promote: names at the proxy and in MLflow, with one password."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from dav2.tracking import decisions, store
from flows.team import client
from flows.team import secrets as secret_files
from flows.team.service import private
from flows.team.settings import ADMIN, WORKER, TeamError, inside, secret


def admit(folder: Path, name: str, promotes: bool) -> Path:
    """Let a person in, or give one who is in another password; a file with the person's variables.

    Args:
        folder: of the stack, which is up.
        name: small letters and digits.
        promotes: whether the person may promote models, roll back and delete; others may read what was decided.

    Raises:
        TeamError: the name is no name or the first person's, or MLflow refuses.
    """
    if name in (ADMIN, WORKER):
        raise TeamError(f"'{name}' is {'the first person' if name == ADMIN else 'the worker'}; take another name")
    password = secrets.token_urlsafe(18)
    secret_files.admit(folder / "secrets", name, password)
    into_mlflow(name, password, promotes)
    lines = [f"{key}='{value}'" for key, value in client.variables(folder, name, password).items()]
    return private(folder / f"{name}.env", "\n".join([*lines, ""]))


def into_mlflow(name: str, password: str, promotes: bool) -> None:
    """Make a user of MLflow, or give one another password; with what the user may do to the journal of decisions.

    Raises:
        TeamError: MLflow does not answer, or refuses.
    """
    # In this process alone, and not through the proxy: the first person's rights, at the address inside.
    own = {"MLFLOW_TRACKING_URI": inside("mlflow"), "MLFLOW_TRACKING_USERNAME": ADMIN}
    os.environ.update({**own, "MLFLOW_TRACKING_PASSWORD": secret("admin"), "MLFLOW_DISABLE_TELEMETRY": "true"})
    try:
        api = store.client()
    except store.TrackingError as error:
        raise TeamError(f"{error}; 'python -m flows.team status' says what is wrong") from None
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    users = AuthServiceClient(inside("mlflow"))
    journal = decisions.keep_journal_apart(api)
    try:
        users.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise TeamError(f"MLflow refuses: {error.message}") from None
        users.update_user_password(name, password)
    # MLflow lets everybody do what its default says, at least, and that is to read and to make: the rest is given here.
    granted = {
        ("experiment", store.experiment(api, Path())): "EDIT",
        # A rollback to the first champion takes the alias `previous` away, for which MLflow asks the right to delete.
        ("registered_model", "*"): "MANAGE" if promotes else "EDIT",
        ("experiment", journal): "EDIT" if promotes else "READ",
    }
    for (kind, identity), permission in granted.items():
        with suppress(MlflowException):  # There is none yet.
            users.revoke_user_permission(name, kind, identity)
        users.grant_user_permission(name, kind, identity, permission)
