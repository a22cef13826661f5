"""The races of the registry on a real PostgreSQL server, whose transactions are not SQLite's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy

from dav2.params import Params
from dav2.tracking import promotion, store
from dav2.tracking.store import TrackingError
from tests.forkserver import crowd
from tests.tracking import builders

NAME = "dav2-teacher"
CARE = "-c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories="


def programs() -> Path | None:
    """Folder of PostgreSQL's programs, where it is installed (``apt-get install postgresql``)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server of our own, without the name of a database."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed; 'apt-get install postgresql' lets this test run")
    # It refuses to run as root; its package brings a user of its own, who may not enter pytest's folders.
    as_other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        if as_other:
            shutil.chown(folder, "postgres")

        def run(program: str, *arguments: str) -> None:
            command = [*as_other, str(binaries / program), "-D", f"{folder}/data", *arguments]
            # Not to a pipe, which the server would keep open.
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "-U", "dav2", "-A", "trust")
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", f"-p {port} {CARE}", "start")
        yield f"postgresql://dav2@127.0.0.1:{port}"
        run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture
def database(server: str) -> str:
    """Address of an empty database."""
    name = f"mlflow_{uuid4().hex[:8]}"
    with sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text(f"create database {name}"))
    return f"{server}/{name}"


def _act(root: Path, params: Params, action: str) -> str:
    try:
        if action == "rollback":
            promotion.rollback(NAME, root)
        else:
            promotion.promote(NAME, root, params)
    except TrackingError:
        return "told"
    return action


@pytest.mark.parametrize("actions", [["promote"] * 4, ["promote", "rollback", "promote", "rollback"]], ids=str)
def test_of_many_who_decide_at_once_one_decides(
    project: Path, params: Params, database: str, monkeypatch: pytest.MonkeyPatch, actions: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    builders.register_three(project, params)
    api = store.client(project)
    before = len(promotion.history(api, NAME))
    found = crowd([partial(_act, project, params, action) for action in actions])
    made = promotion.history(api, NAME)[before:]
    assert 1 <= len(made) <= len([outcome for outcome in found if outcome != "told"]), found
    assert len({entry["version"] + entry["action"] for entry in made}) == len(made)
    aliases = {alias: str(version) for alias, version in api.get_registered_model(NAME).aliases.items()}
    # Who began late may have decided after another: then 3 was rolled back to 2, or 2 to 1.
    last = made[-1]
    assert aliases["champion"] == (last["version"] if last["action"] == "promoted" else str(int(last["version"]) - 1))
