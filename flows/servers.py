"""The pages a person looks at: the Prefect server and the MLflow server of this project folder.

One Prefect server, bound to 127.0.0.1, serves every stage of a ``dvc repro``: a stage then pays seconds instead of a
server start. It is started on first use and left running. ``PREFECT_API_URL`` names another server instead.
Run as ``python -m flows.servers up|down|status`` (what ``dav2 up``, ``dav2 down`` call).
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from collections.abc import Callable

import typer

from flows import prefect_app, processes
from flows.access import Access, check_given, is_ours, secret
from flows.processes import STATE, Server, ServerError
from flows.worker import WORK_POOL, start_worker

PREFECT_PORT = 4200
MLFLOW_PORT = 5000
HEALTH = "/api/health"

DAMAGE = {
    "Can't locate revision identified by": "was written by another version of Prefect",
    "database disk image is malformed|file is not a database|no such table": "is damaged",
}
"""What the log of a server says that cannot use its database → what that means."""

app = typer.Typer(add_completion=False, no_args_is_help=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _choose_port(name: str, preferred: int) -> int:
    port = processes.free_port(preferred)
    if port != preferred:
        _say(f"port {preferred} is taken by a program that is not this project's {name} server; using {port}")
    return port


def prefect_access() -> Access:
    """The Prefect server to use, started here if there is none.

    Returns:
        The server that ``PREFECT_API_URL`` names, with ``PREFECT_API_AUTH_STRING``, else this folder's own.

    Raises:
        ServerError: the server that was named cannot be used, or the local one does not start.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        own = processes.running("prefect")
        mine = own is not None and given.rstrip("/") == f"{own.url}/api"
        access = Access(given, os.environ.get("PREFECT_API_AUTH_STRING") or (secret() if mine else None))
        check_given(access)
        return access
    with processes.lock("prefect"):
        server, auth = processes.running("prefect"), secret()
        if server is None or not (server.answers(HEALTH) and is_ours(Access(f"{server.url}/api", auth))):
            if server is not None:
                processes.stop_group(server.pid)
            server = _on_a_free_port("Prefect", PREFECT_PORT, lambda port: _start_prefect(port, auth))
        return Access(f"{server.url}/api", auth)


def _on_a_free_port(name: str, preferred: int, start: Callable[[int], Server]) -> Server:
    """Start a server at ``preferred`` or the next port that is free.

    Another program may take a port between the moment it was found free and the moment the server asks for it; then the
    next one is tried. Any other failure stays one.
    """
    for _ in range(5):
        port = _choose_port(name, preferred)
        try:
            return start(port)
        except ServerError:
            if processes.free_port(port) == port:
                raise
    raise ServerError(f"the {name} server lost its port to other programs five times; try again")


def _start_prefect(port: int, auth: str) -> Server:
    _say(f"starting the Prefect server on http://127.0.0.1:{port} (once; it stays up until 'dav2 down') …")
    home = (STATE / "prefect").resolve()
    begun = (STATE / "prefect.log").stat().st_size if (STATE / "prefect.log").exists() else 0
    try:
        return processes.start(
            "prefect",
            [sys.executable, "-m", "flows.prefect_app", str(port)],
            port,
            HEALTH,
            {"PREFECT_HOME": str(home), **prefect_app.settings(port, auth)},
        )
    except ServerError as error:
        with (STATE / "prefect.log").open("rb") as log:
            log.seek(begun)
            said = log.read().decode(errors="replace")
        why = next((why for sign, why in DAMAGE.items() if re.search(sign, said)), None)
        if why is None:
            raise error
        database = STATE / "prefect" / "prefect.db"
        raise ServerError(
            f"the Prefect database {database} {why}; move it away ('mv {database} {database}.old') and try again: only "
            "the page's history of runs goes with it, no data and no model"
        ) from None


def mlflow_page() -> str:
    """Address of the MLflow page: what MLFLOW_TRACKING_URI names, else a server over the local store, started here.

    Raises:
        ServerError: nothing answers at the address that was named, or the local server does not start.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if uri.startswith(("http://", "https://")):
        if not processes.listens(f"{uri.rstrip('/')}/health"):
            raise ServerError(
                f"MLFLOW_TRACKING_URI is {uri}, but nothing answers there; start it or unset the variable"
            )
        return uri
    with processes.lock("mlflow"):
        server = processes.running("mlflow")
        if server is None or not server.answers("/health", timeout=30.0):
            if server is not None:
                processes.stop_group(server.pid)
            server = _on_a_free_port("MLflow", MLFLOW_PORT, lambda port: _start_mlflow(uri, port))
        return server.url


def _start_mlflow(uri: str, port: int) -> Server:
    _say(f"starting the MLflow server on http://127.0.0.1:{port} …")
    return processes.start("mlflow", _mlflow_command(uri, port), port, "/health", {"MLFLOW_DISABLE_TELEMETRY": "true"})


def runs_page(url: str) -> str:
    """Address of the list of runs: MLflow's own front page is that of its tools for language models.

    Where nothing was recorded yet, or the server does not say, it is ``url``.
    """
    from dav2.tracking import view
    from dav2.tracking.store import EXPERIMENT

    question = f"{url.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
    try:
        with urllib.request.urlopen(question, timeout=5) as answer:
            found = json.load(answer)["experiment"]["experiment_id"]
    except (OSError, ValueError, KeyError):
        return url
    return view.address(url, found)


def _mlflow_command(uri: str, port: int) -> list[str]:
    from dav2.tracking.store import artifact_root, tracking_uri

    artifacts = str(artifact_root().resolve())
    return [
        sys.executable, "-m", "mlflow", "server",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", uri or tracking_uri(),
        "--artifacts-destination", artifacts,
        "--allowed-hosts", f"127.0.0.1:{port},localhost:{port}",
        "--cors-allowed-origins", f"http://127.0.0.1:{port},http://localhost:{port}",
    ]  # fmt: skip


@app.command()
def up(worker: bool = typer.Option(False, help="Also serve the scheduled rebuild.")) -> None:
    """Start the pages and print where they are."""
    try:
        access = prefect_access()
        print(f"Prefect  {access.url.removesuffix('/api')}")
        if access.auth:
            print(f"         its page asks for a password once: {access.auth}")
        print(f"MLflow   {runs_page(mlflow_page())}")
        if worker:
            start_worker(access)
            print(f"worker   pool '{WORK_POOL}'; start the rebuild, or switch its schedule on, on the Deployments page")
    except ServerError as error:
        _say(str(error))
        raise typer.Exit(1) from None


@app.command()
def down() -> None:
    """Stop every server that this project folder started."""
    for name in ("worker", "mlflow", "prefect"):
        if processes.stop(name):
            print(f"stopped {name}")


@app.command()
def status() -> None:
    """Say which servers run and where."""
    for name in ("prefect", "mlflow", "worker"):
        server = processes.running(name)
        print(f"{name:8} {server.url if server else 'not running'}")


if __name__ == "__main__":
    app()
