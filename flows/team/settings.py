"""What every service of the team's stack reads: addresses from the environment, secrets from files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

DATABASES = {"mlflow": "mlflow-db", "mlflow_auth": "mlflow-db", "prefect": "prefect-db"}
"""Database → the secret that is the password of its owner."""
OWNERS = {"mlflow": "mlflow", "mlflow_auth": "mlflow", "prefect": "prefect"}
BUCKETS = ("dav2", "mlflow")
"""For people's data and the DVC remote, and for MLflow's files."""
ADMIN = "dav2"
"""Name of the first person, who may do everything."""

WORKER = "worker"
"""Who the worker is for MLflow: a run that somebody starts on the Prefect page is this one's, and cannot promote."""


class TeamError(RuntimeError):
    """The stack cannot do what was asked; the message says what to do."""


def secret(name: str) -> str:
    """A secret by the name of its file.

    Raises:
        TeamError: there is no such file, or it is empty.
    """
    path = Path(os.environ.get("DAV2_TEAM_SECRETS", "/run/secrets")) / name
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise TeamError(f"secret '{name}': {path} cannot be read ({error.strerror}); make team-up makes it") from None
    if not text:
        raise TeamError(f"secret '{name}': {path} is empty; delete it, and make team-up makes another")
    return text


def address(service: str) -> tuple[str, int]:
    """Host and port at which the others find a service.

    Raises:
        TeamError: the environment does not say.
    """
    host, _, port = os.environ.get(f"DAV2_{service.upper()}", "").rpartition(":")
    if not host or not port.isdigit():
        raise TeamError(f"DAV2_{service.upper()} is no host:port; see infra/compose.yaml")
    return host, int(port)


def bind() -> str:
    """Address that services listen at."""
    return os.environ.get("DAV2_BIND", "127.0.0.1")


def door() -> str:
    """Address that the proxy listens at: this machine's own, unless ``DAV2_PUBLISH`` names another.

    Raises:
        TeamError: the login has nobody in it, so that the door would stand open, or closed to all.
    """
    text = secret("people")
    if not all(re.fullmatch(r"\S+ \$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", line) for line in text.splitlines()):
        raise TeamError("secret 'people' must hold a name and a bcrypt hash in each line; delete it, and make team-up")
    return os.environ.get("DAV2_DOOR", "127.0.0.1")


def page(service: str) -> str:
    """Address of a service from outside: the proxy's."""
    return f"https://{os.environ.get('DAV2_NAME', 'localhost')}:{os.environ[f'DAV2_{service.upper()}_PAGE']}"


def data() -> Path:
    """Folder that keeps what the service keeps."""
    return Path(os.environ["DAV2_TEAM_DATA"])


def database_url(name: str, driver: str) -> str:
    """Address of a database for SQLAlchemy, with its owner's password."""
    host, port = address("postgres")
    return f"{driver}://{OWNERS[name]}:{quote(secret(DATABASES[name]), safe='')}@{host}:{port}/{name}"


def s3_environment(endpoint: str) -> dict[str, str]:
    """What a client of the store needs."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": secret("s3-key"),
        "AWS_SECRET_ACCESS_KEY": secret("s3-secret"),
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def inside(service: str) -> str:
    """Address of a service for the others."""
    host, port = address(service)
    return f"http://{host}:{port}"


def libpq(environment: Mapping[str, str], password: str, user: str = "postgres") -> dict[str, str]:
    """Environment of PostgreSQL's own programs; the password stands in no command line."""
    host, port = address("postgres")
    return {**environment, "PGHOST": host, "PGPORT": str(port), "PGUSER": user, "PGPASSWORD": password}
