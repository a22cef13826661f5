"""The secrets of the team's stack: random, made once, each in a file that only its owner can read."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from pathlib import Path

from flows.team.service import private
from flows.team.settings import ADMIN, TeamError

NAMES = ("admin", "mlflow-db", "mlflow-flask", "postgres", "prefect-db", "s3-key", "s3-secret")
NOTIFY = "notify"
"""The webhook that is told of failures: empty until somebody writes its address there."""
PEOPLE = "people"
"""Who the proxy lets in: a line for each person, the name and a bcrypt hash."""


def make(folder: Path) -> list[str]:
    """Make those secrets that are not there; returns their names.

    Raises:
        TeamError: Caddy, which hashes the password, is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made = []
    for name in NAMES:
        if not (folder / name).is_file():
            private(folder / name, secrets.token_urlsafe(24).replace("-", "x").replace("_", "y") + "\n")
            made.append(name)
    if not (folder / "prefect").is_file():
        private(folder / "prefect", f"prefect:{secrets.token_urlsafe(32)}\n")
        made.append("prefect")
    if not (folder / NOTIFY).is_file():
        private(folder / NOTIFY, "")
    if not (folder / PEOPLE).is_file():
        # Prefect's one secret is a way in too: its clients know no other, and say it once more within their streams.
        name, _, shared = (folder / "prefect").read_text().strip().partition(":")
        known = {ADMIN: (folder / "admin").read_text().strip(), name: shared}
        private(folder / PEOPLE, "".join(f"{person} {hashed(password)}\n" for person, password in known.items()))
        made.append(PEOPLE)
    return made


def admit(folder: Path, name: str, password: str) -> None:
    """Let a person in at the proxy, or give another password to one who is.

    Raises:
        TeamError: the name is none.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_.-]{1,40}", name):
        raise TeamError(f"'{name}' cannot be a name: small letters, digits, '.', '-' and '_', a letter first")
    path = folder / PEOPLE
    others = [line for line in path.read_text().splitlines() if line.split()[:1] != [name]]
    private(path.with_suffix(".part"), "\n".join([*others, f"{name} {hashed(password)}", ""])).replace(path)


def hashed(password: str) -> str:
    """A bcrypt hash of a password, which Caddy reads from its input."""
    caddy = shutil.which("caddy")
    if caddy is None:
        raise TeamError("'caddy' is not installed; on Debian 'apt-get install caddy' brings it")
    done = subprocess.run([caddy, "hash-password"], input=f"{password}\n", capture_output=True, text=True)
    if done.returncode:
        raise TeamError(f"caddy hash-password failed: {done.stderr.strip()}")
    return done.stdout.split()[-1]
