"""The team's stack as processes of this machine, and what containers and processes have in common.

``python -m flows.team up | down | status | secrets | person NAME | env | backup FOLDER | restore FOLDER``; the Makefile
calls these, and ``docs/team.md`` walks through them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import typer

from flows import processes
from flows.team import backup as backups
from flows.team import compose, health, places, secrets
from flows.team.client import write_environment
from flows.team.settings import TeamError

PATIENCE = 600.0
"""Seconds until every service has to be well."""
SERVERS = ["postgres", "store", "mlflow", "prefect", "proxy"]
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def _here() -> Path:
    """Folder of the stack, whose addresses are in the environment from now on."""
    if "DAV2_TEAM_SECRETS" not in os.environ:
        os.environ.update(places.addresses())
        return places.folder()
    return Path(os.environ["DAV2_TEAM_SECRETS"]).parent


def _supervisor() -> psutil.Process | None:
    """The process that keeps this stack up."""
    try:
        process = psutil.Process(int((places.folder() / "supervisor.pid").read_text()))
        return process if "flows.team.supervise" in process.cmdline() else None
    except (OSError, ValueError, psutil.Error):
        return None


def _ask(services: list[str]) -> dict[str, str]:
    """What is wrong with each service, or with its disk; empty where nothing is."""
    said = {name: health.problem(name) for name in services}
    kept = {name: places.folder() / "data" / name for name in services}
    return {name: (health.room(kept[name]) if kept[name].is_dir() else "") or each for name, each in said.items()}


def _start(only: list[str]) -> None:
    """Start the supervisor of ``only``, or of all services, and wait until they are well."""
    folder = _here()
    if _supervisor() is None:
        _refuse_taken_ports()
        with (folder / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.team.supervise", *only], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        (folder / "supervisor.pid").write_text(str(process.pid))
    wanted = [name for name, each in compose.services(compose.FILE, places.variables()).items() if each.check]
    wanted = [name for name in wanted if not only or name in only]
    deadline = time.monotonic() + PATIENCE
    while bad := {name: said for name, said in _ask(wanted).items() if said}:
        if time.monotonic() > deadline or _supervisor() is None:
            name = next(iter(bad))
            log_file = folder / "logs" / f"{name}.log"
            tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:]) if log_file.exists() else ""
            raise TeamError(f"{name}: {bad[name]}; its log {log_file} ends with:\n{tail}")
        time.sleep(0.5)


def _refuse_taken_ports() -> None:
    first = places.first_port()
    for port in range(first, first + places.PORTS):
        if processes.free_port(port) != port:
            raise TeamError(f"port {port} is taken; end what listens there, or give DAV2_TEAM_PORT another port")


def _stop() -> bool:
    process = _supervisor()
    if process is None:
        return False
    process.send_signal(signal.SIGTERM)
    psutil.wait_procs([process], timeout=PATIENCE)
    (places.folder() / "supervisor.pid").unlink(missing_ok=True)
    return True


@app.command("secrets")
def make_secrets() -> None:
    """Make the secrets that are not there yet."""
    folder = places.folder() / "secrets"
    made = secrets.make(folder)
    print(f"made {', '.join(made)} in {folder}" if made else f"all secrets are in {folder}")


@app.command()
def up() -> None:
    """Start the stack, and wait until all of it is well."""
    folder = _here()
    secrets.make(folder / "secrets")
    _start([])
    path = write_environment(folder)
    print(f"the stack is up: {os.environ['DAV2_NAME']}, ports {os.environ['DAV2_PREFECT_PAGE']} (Prefect), "
          f"{os.environ['DAV2_MLFLOW_PAGE']} (MLflow), {os.environ['DAV2_STORE_PAGE']} (S3)")  # fmt: skip
    print(f"name 'dav2', password in {folder / 'secrets' / 'admin'}; in a project: set -a; . {path}; set +a")


@app.command()
def down() -> None:
    """End the stack; its data stays."""
    print("the stack is down" if _stop() else "the stack was not up")


@app.command()
def status() -> None:
    """Say of each service whether it is well; exit status 1 if one is not."""
    _here()
    said = _ask(SERVERS)
    for name, problem in said.items():
        print(f"{name:9} {problem or 'well'}")
    raise typer.Exit(int(any(said.values())))


@app.command()
def metrics(port: int = typer.Option(0, help="Serve them here, to this machine; without it they are printed.")) -> None:
    """What Prometheus reads of the stack and of the project in this folder."""
    from flows.team import metrics as shown

    _here()
    if port:
        shown.serve(Path(), port, lambda: _ask(SERVERS))
    else:
        print(shown.text(shown.samples(Path(), _ask(SERVERS))), end="")


@app.command()
def person(
    name: str,
    promotes: bool = typer.Option(False, "--promotes", help="May promote models and roll back."),
) -> None:
    """Let a person in, with a new password; say where the person's variables are."""
    from flows.team import people

    print(people.admit(_here(), name, promotes))
    supervisor = _supervisor()
    proxy = [each for each in supervisor.children() if "caddy" in each.name()] if supervisor else []
    for process in proxy:
        process.terminate()  # It starts again and reads who there is.
    if not proxy:
        print("the proxy knows the name when it has started again")


@app.command()
def watch() -> None:
    """Tell the webhook in the secret 'notify' of failures from now on, and limit heavy stages to DAV2_TEAM_HEAVY."""
    from flows.access import Access
    from flows.team.settings import inside, secret
    from flows.team.watch import set_up

    _here()
    print(set_up(Access(f"{inside('prefect')}/api", secret("prefect"))))


@app.command()
def env() -> None:
    """Write the file that a project's shell reads to use the stack, and say where it is."""
    print(write_environment(_here()))


@app.command()
def backup(target: Path) -> None:
    """Write databases, objects and secrets to a new folder. Keep it like the secrets that it holds."""
    folder = _here()
    said = backups.backup(target, folder / "secrets")
    print(f"{len(said['files'])} files in {target}")


@app.command()
def restore(source: Path) -> None:
    """Fill an empty stack from a backup; it is left down."""
    folder = _here()
    backups.check(source)
    if _supervisor() is not None or any((folder / "data").glob("*/*")):
        raise TeamError(f"{folder} is in use; restore into an empty folder (DAV2_TEAM=...), or move this one away")
    shutil.rmtree(folder / "secrets", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "secrets", folder / "secrets")
    (folder / "secrets").chmod(0o700)
    try:
        _start(["postgres", "store"])
        backups.restore(source)
    finally:
        _stop()
    print(f"restored {source} into {folder}; start it with: make team-up TEAM=processes")


@app.command("restore-data")
def restore_data(source: Path) -> None:
    """Fill the databases and buckets of a stack of containers whose PostgreSQL and store alone are up."""
    _here()
    backups.restore(source)


def main() -> None:
    """Command line; a trouble that a person can mend is one line."""
    try:
        app()
    except TeamError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
