"""One service of the team's stack: ``python -m flows.team.service NAME`` prepares it and becomes it.

Secrets go from files into the environment of the server or a file that only it can read, never into a command line.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_urlsafe

from flows.prefect_app import LEASES
from flows.team import postgres
from flows.team.settings import (
    ADMIN,
    BUCKETS,
    WORKER,
    TeamError,
    address,
    bind,
    data,
    database_url,
    door,
    inside,
    page,
    s3_environment,
    secret,
)


def become(command: list[str], environment: dict[str, str]) -> None:
    """Replace this process by ``command``.

    Raises:
        TeamError: the program is not installed.
    """
    program = shutil.which(command[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise TeamError(f"'{command[0]}' is not installed; docs/team.md lists what the stack needs")
    sys.stdout.flush()
    os.execve(program, command, {**os.environ, **environment})


def private(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def scratch() -> Path:
    """A folder of this service alone, for a file that it reads at its start."""
    folder = Path(os.environ.get("DAV2_TEAM_SCRATCH", "/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def store() -> None:
    """SeaweedFS: master, volume and filer for itself alone, and S3 for the others."""
    port = address("store")[1]
    keys = [{"accessKey": secret("s3-key"), "secretKey": secret("s3-secret")}]
    may = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": ADMIN, "credentials": keys, "actions": may}
    config = private(scratch() / "s3.json", json.dumps({"identities": [identity]}))
    own = {"master.port": 1, "volume.port": 3, "filer.port": 5}
    grpc = {"master.port.grpc": 2, "volume.port.grpc": 4, "filer.port.grpc": 6, "s3.port.grpc": 7}
    places = [f"-{name}={port + offset}" for name, offset in {**own, **grpc}.items()]
    # Only S3 is for the others; what it is made of answers this machine, or this container, alone.
    become(
        ["weed", "server", f"-dir={data()}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", *places,
         f"-s3.port={port}", f"-s3.ip.bind={bind()}", f"-s3.config={config}", "-volume.max=0",
         "-master.volumeSizeLimitMB=1024", "-master.telemetry=false", "-s3.port.iceberg=0"],
        {},
    )  # fmt: skip


def mlflow() -> None:
    """MLflow: runs and people in PostgreSQL, files in the store, whose buckets it makes, a password for everybody."""
    from flows.team.backup import make_buckets

    make_buckets()
    host, port = address("mlflow")
    url = database_url("mlflow_auth", "postgresql+psycopg2").replace("%", "%%")
    config = private(scratch() / "auth.ini", "\n".join((
        "[mlflow]", "default_permission = USE", f"database_uri = {url}", f"admin_username = {ADMIN}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth", "",
    )))  # fmt: skip
    outside = page("mlflow")
    become(
        ["mlflow", "server", "--host", bind(), "--port", str(port), "--workers", "1", "--app-name", "basic-auth",
         "--artifacts-destination", f"s3://{BUCKETS[1]}",
         "--allowed-hosts", f"{host}:{port},127.0.0.1:{port},{outside.removeprefix('https://')}",
         "--cors-allowed-origins", outside],
        {
            **s3_environment(inside("store")),
            "MLFLOW_BACKEND_STORE_URI": database_url("mlflow", "postgresql+psycopg2"),
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_AUTH_ADMIN_PASSWORD": secret("admin"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secret("mlflow-flask"),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Its job runner is for the scoring of language models, and keeps 1.3 GB in seven processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )  # fmt: skip


def prefect() -> None:
    """The Prefect server, on PostgreSQL."""
    become(
        ["prefect", "server", "start", "--host", bind(), "--port", str(address("prefect")[1])],
        {
            # Who holds a place under a concurrency limit is kept here, for a server that was killed to free it.
            "PREFECT_HOME": str(data() / "prefect"),
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            # Its pages are unpacked at the start, and its own folder for them is read-only in a container.
            "PREFECT_UI_STATIC_DIRECTORY": str(scratch() / "prefect-pages"),
            "PREFECT_API_DATABASE_CONNECTION_URL": database_url("prefect", "postgresql+asyncpg"),
            "PREFECT_SERVER_API_AUTH_STRING": secret("prefect"),
            "PREFECT_UI_API_URL": f"{page('prefect')}/api",
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": page("prefect"),
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_METRICS_ENABLED": "true",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        },
    )


def worker() -> None:
    """The worker, in the project folder: it registers the deployments and runs them, without a right to promote."""
    from flows.team.people import into_mlflow

    password = token_urlsafe(24)
    into_mlflow(WORKER, password, promotes=False)
    environment = {
        **s3_environment(inside("store")),
        "PREFECT_API_URL": f"{inside('prefect')}/api",
        "PREFECT_API_AUTH_STRING": secret("prefect"),
        "PREFECT_HOME": str(scratch() / "prefect"),
        "MLFLOW_TRACKING_URI": inside("mlflow"),
        "MLFLOW_TRACKING_USERNAME": WORKER,
        "MLFLOW_TRACKING_PASSWORD": password,
        "DO_NOT_TRACK": "1",
    }
    os.environ.update(environment)
    from flows.access import Access
    from flows.team.watch import set_up
    from flows.worker import WORK_POOL, register

    access = Access(environment["PREFECT_API_URL"], environment["PREFECT_API_AUTH_STRING"])
    register(access)
    set_up(access)
    become(["prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process", "--limit", "1"], environment)


def proxy() -> None:
    """Caddy: TLS, the login, and nothing else that listens beyond the stack."""
    basic = base64.b64encode(secret("prefect").encode()).decode()
    become(
        ["caddy", "run", "--config", "infra/team/Caddyfile", "--adapter", "caddyfile"],
        {
            "DAV2_PREFECT_BASIC": basic,
            "DAV2_DOOR": door(),
            "XDG_DATA_HOME": str(data()),
            "XDG_CONFIG_HOME": str(data()),
        },
    )


SERVICES: dict[str, Callable[[], None]] = {
    "postgres": lambda: become(*postgres.prepare()),
    "store": store,
    "mlflow": mlflow,
    "prefect": prefect,
    "worker": worker,
    "proxy": proxy,
}


def main() -> int:
    """Command line; returns only where a service cannot be started, or was a task that is done."""
    try:
        SERVICES[sys.argv[1]]()
    except TeamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
