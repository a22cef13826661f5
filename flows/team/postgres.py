"""PostgreSQL of the team's stack: a cluster made on first use, with a database and an owner for each who needs one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from flows.team.settings import DATABASES, OWNERS, TeamError, address, bind, data, secret

_VERSION = "PG_VERSION"


def program(name: str) -> str:
    """Path of a program of PostgreSQL; Debian keeps the server's out of the search path.

    Raises:
        TeamError: it is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise TeamError(f"'{name}' is not installed; on Debian 'apt-get install postgresql' brings it")
    return path


def prepare() -> tuple[list[str], dict[str, str]]:
    """Command and environment of the server, whose cluster, owners and databases are there when this returns.

    Raises:
        TeamError: it is not installed, or the cluster was made by another major version.
    """
    passwords = {name: secret(name) for name in ("postgres", *set(DATABASES.values()))}
    folder = data() / "cluster"
    folder.parent.mkdir(parents=True, exist_ok=True)
    _leave_root(folder.parent)
    if not (folder / _VERSION).is_file():
        _make(folder, passwords["postgres"])
    made_by = (folder / _VERSION).read_text().strip()
    server = program("postgres")
    here = next(word for word in _run([server, "--version"]).split() if word[0].isdigit()).partition(".")[0]
    if made_by != here:
        raise TeamError(
            f"the database in {folder} is of PostgreSQL {made_by}, but {here} is installed; start the version it was "
            "made by, 'make team-backup', and restore the backup into an empty stack (docs/team.md)"
        )
    _make_databases(folder, passwords)
    # Its socket lies with the data, so that two stacks on one machine do not meet.
    return [server, "-D", str(folder), *_listening(), "-k", str(folder)], {}


def _listening() -> list[str]:
    return ["-c", f"listen_addresses={bind()}", "-p", str(address("postgres")[1]), "-c", "max_connections=100",
            "-c", "shared_buffers=128MB"]  # fmt: skip


def _leave_root(folder: Path) -> None:
    """PostgreSQL refuses to run as root: where this does, it goes on as Debian's user for it."""
    if os.geteuid() != 0:
        return
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise TeamError("PostgreSQL does not run as root, and there is no user 'postgres' to run it as") from None
    os.chown(folder, user.pw_uid, user.pw_gid)
    for above in folder.resolve().parents:
        if not above.stat().st_mode & 0o001:
            raise TeamError(f"user 'postgres' cannot reach {folder}: {above} is closed to others; 'chmod o+x {above}'")
    os.initgroups("postgres", user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = user.pw_dir


def _make(folder: Path, password: str) -> None:
    """A cluster in which everybody needs a password; one that was not finished is made again."""
    unfinished = folder.with_name("cluster.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=folder.parent) as file:
        file.write(password)
        file.flush()
        _run([program("initdb"), "-D", str(unfinished), "-U", "postgres", "--pwfile", file.name, "-E", "UTF8",
              "--locale=C.UTF-8", "-A", "scram-sha-256"])  # fmt: skip
    with (unfinished / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all scram-sha-256\n")
    unfinished.rename(folder)


def _make_databases(folder: Path, passwords: dict[str, str]) -> None:
    """Owners with their passwords of now, and databases; on a server that only this process reaches."""
    control = program("pg_ctl")
    options = f"-c listen_addresses='' -k {folder} -p {address('postgres')[1]}"
    _run([control, "-D", str(folder), "-w", "-s", "-o", options, "-l", str(folder / "start.log"), "start"])
    try:
        there = _ask(
            folder, passwords["postgres"], "SELECT rolname FROM pg_roles UNION SELECT datname FROM pg_database"
        )
        for owner, name in {OWNERS[database]: secret for database, secret in DATABASES.items()}.items():
            verb = "ALTER" if owner in there else "CREATE"
            _ask(folder, passwords["postgres"], f"{verb} ROLE {owner} LOGIN PASSWORD '{passwords[name]}'")
        databases = _ask(folder, passwords["postgres"], "SELECT datname FROM pg_database")
        for database, owner in OWNERS.items():
            if database not in databases:
                _ask(folder, passwords["postgres"], f"CREATE DATABASE {database} OWNER {owner}")
    finally:
        _run([control, "-D", str(folder), "-w", "-s", "-m", "fast", "stop"])


def _ask(folder: Path, password: str, statement: str) -> list[str]:
    """Rows of a statement, which psql reads from its input: a password in it stands in no command line."""
    place = {"PGHOST": str(folder), "PGPORT": str(address("postgres")[1]), "PGUSER": "postgres", "PGPASSWORD": password}
    command = [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
    return _run(command, statement, place).split()


def _run(command: list[str], text: str = "", environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, input=text, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        if "password authentication failed" in said:
            raise TeamError(
                "the database was made with another secret 'postgres' than there is now; put that one back (a backup "
                f"holds it), nothing was changed: {said.rpartition('FATAL:')[2].strip()}"
            )
        raise TeamError(f"{Path(command[0]).name} failed: {said}")
    return done.stdout
