"""Start, find and stop the local servers, each in a session of its own that outlives the command that started it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dav2 import locks
from dav2.files import write_whole

STATE = Path(".dav2")
"""Everything that the local servers keep, below the project folder."""
EXPERIMENTS = (".dvc", "tmp", "exps")
"""Below a project, where DVC runs queued experiments, each in a copy that it removes afterwards."""


class ServerError(RuntimeError):
    """A server does not answer or cannot be started; the message says where its log is."""


@dataclass(frozen=True)
class Server:
    """A server that was started here: enough to find it again and to be sure that it is the same process.

    Whose it is says its working directory: a copy of a project folder holds a copy of the record, not the server.
    """

    name: str
    pid: int
    started: float
    """Creation time of the process, so that a reused process id is not mistaken for the server."""
    port: int

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Whether the process runs, and in this project folder."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.started) >= 1.0:
                return False
            return Path(process.cwd()).samefile(home())
        except (psutil.Error, OSError):
            return False

    def answers(self, health: str, timeout: float = 10.0) -> bool:
        """Whether this very process, or a child of it, listens at the port and is well."""
        return _listens(self.pid, self.port) and healthy(f"{self.url}{health}", timeout)


def home() -> Path:
    """The project folder whose servers these are: this one, or that of which this is an experiment's copy."""
    return STATE.resolve().parent


def share_state() -> None:
    """In an experiment's copy of a project, use the project's own servers, records and caches.

    A server that the copy started would stay behind without a folder, and what MLflow keeps of the experiment's runs
    would go with it.
    """
    folders = [each for each in Path().resolve().parents if each.parts[-3:] == EXPERIMENTS]
    if folders and not STATE.exists():
        state = folders[0].parents[2] / STATE
        state.mkdir(exist_ok=True)
        STATE.symlink_to(state)


def _record(name: str) -> Path:
    return STATE / f"{name}.json"


def running(name: str) -> Server | None:
    """The server of this project folder that was started under ``name``, if it still runs."""
    try:
        server = Server(**json.loads(_record(name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return server if server.alive() else None


def healthy(url: str, timeout: float = 2.0) -> bool:
    """Whether a GET of ``url`` answers 200 within ``timeout`` seconds."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def listens(url: str, timeout: float = 10.0) -> bool:
    """Whether a server answers a GET of ``url``, be it by refusing: one with passwords refuses anonymous questions."""
    try:
        with urllib.request.urlopen(url, timeout=timeout):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def free_port(preferred: int) -> int:
    """``preferred`` if nothing listens there, else the next port that is free (checked up to 100 further)."""
    for port in range(preferred, preferred + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port between {preferred} and {preferred + 99}")


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One starter at a time: a second process waits here and then finds the server running."""
    with locks.exclusive(STATE / f"{name}.lock"):
        yield


def start(
    name: str, command: list[str], port: int, health: str, environment: dict[str, str], timeout: float = 120.0
) -> Server:
    """Start ``command`` detached and wait until it, not a stranger, answers ``http://127.0.0.1:<port><health>``.

    Raises:
        ServerError: the process ended or did not answer in time; the message ends with its last lines of output.
    """
    log = STATE / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
            cwd=home(),
        )
    server = Server(name, process.pid, psutil.Process(process.pid).create_time(), port)
    deadline = time.monotonic() + timeout
    # Another program may have taken the port since it was found free, and would answer for a server that is not there.
    while not server.answers(health, timeout=2.0):
        if process.poll() is not None or time.monotonic() > deadline:
            stop_group(process.pid)
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ServerError(f"the {name} server did not start; its log {log} ends with:\n{tail}")
        time.sleep(0.2)
    write_whole(_record(name), json.dumps(asdict(server)))
    return server


def _listens(leader: int, port: int) -> bool:
    """Whether a process of the session that ``leader`` leads accepts connections at ``port``."""
    for member in (p for p in psutil.process_iter() if _group(p.pid) == leader):
        try:
            if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in member.net_connections("tcp")):
                return True
        except psutil.Error:
            continue
    return False


def stop_group(pid: int, patience: float = 15.0) -> None:
    """Ask the session that ``pid`` leads to end, and kill what is left of it after ``patience`` seconds."""
    members = [p for p in psutil.process_iter() if _group(p.pid) == pid]
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, signum)
        except ProcessLookupError:
            break
        if not psutil.wait_procs(members, timeout=patience)[1]:
            break


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def stop(name: str) -> bool:
    """Stop the server of that name; ``False`` when none was running."""
    with lock(name):
        server = running(name)
        if server is not None:
            stop_group(server.pid)
        _record(name).unlink(missing_ok=True)
        return server is not None
