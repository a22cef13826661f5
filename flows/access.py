"""Who may use this project's Prefect server: whoever holds a random string that is kept in the project folder.

Any page that a browser shows, and any user of the machine, can send requests to a port of 127.0.0.1. The server
therefore answers nobody without the string (:data:`SECRET_FILE`), which every command of this folder reads and passes
on to its children. It also tells the servers of two projects apart: only the project's own takes it.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from flows import processes
from flows.processes import STATE, ServerError

SECRET_FILE = "prefect.secret"
"""Below ``.dav2``, readable by its owner alone."""
VERSION_PATH = "/admin/version"
"""A path of the API that asks for the string, as ``/health`` does not."""
PATIENCE = 60.0
"""Seconds that a server which was named may take to come back."""


@dataclass(frozen=True)
class Access:
    """Where the Prefect API is and what opens it.

    Attributes:
        url: address of the API.
        auth: ``user:password``, or ``None`` where the server asks for nothing.
    """

    url: str
    auth: str | None = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to report to the same server."""
        return {"PREFECT_API_URL": self.url, **({"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {})}


def secret() -> str:
    """The project's string as ``dav2:<random>``, made on first use."""
    path = STATE / SECRET_FILE
    with processes.lock("secret"):
        found = path.read_text(errors="replace").strip() if path.is_file() else ""
        if not re.fullmatch(r"dav2:[\w-]{40,}", found, re.ASCII):
            found = f"dav2:{secrets.token_urlsafe(32)}"
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(found + "\n")
            temporary.replace(path)
        path.chmod(0o600)
    return found


def answer(access: Access, timeout: float = 30.0) -> tuple[int, str]:
    """Status and body with which the server answers the question for its version; (0, reason) where it does not."""
    request = urllib.request.Request(f"{access.url.rstrip('/')}{VERSION_PATH}")
    if access.auth:
        request.add_header("Authorization", "Basic " + base64.b64encode(access.auth.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return int(response.status), response.read(1000).decode(errors="replace").strip('"\n ')
    except urllib.error.HTTPError as error:
        return int(error.code), ""
    except (OSError, ValueError) as error:
        return 0, str(error)


def is_ours(access: Access) -> bool:
    """Whether the server takes the string and takes nobody without it."""
    return answer(access)[0] == 200 and answer(Access(access.url, None))[0] == 401


def _answer_in_time(access: Access) -> tuple[int, str]:
    """As :func:`answer`, of a server that may be starting again: for :data:`PATIENCE` seconds it is asked once more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = answer(access, timeout=10.0)
        # A proxy before a server that is not back yet says 502 or 503.
        if found[0] not in (0, 502, 503) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def check_given(access: Access) -> None:
    """Make sure that the server which ``PREFECT_API_URL`` names can be used.

    Raises:
        ServerError: it does not answer, does not let us in, or is of another major version.
    """
    import prefect

    status, text = _answer_in_time(access)
    if status in (401, 403):
        raise ServerError(
            f"the Prefect server {access.url} does not let us in; set PREFECT_API_AUTH_STRING to its auth string"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        raise ServerError(
            f"the Prefect server {access.url} is not trusted ({text}); see whether this machine's clock is right "
            "('date -u') and SSL_CERT_FILE names whom to trust (docs/team.md)"
        )
    if status != 200:
        raise ServerError(
            f"PREFECT_API_URL is {access.url}, but no Prefect server answers there; start it or unset the variable"
        )
    if text.split(".")[0] != prefect.__version__.split(".")[0]:
        raise ServerError(
            f"the Prefect server {access.url} is version {text[:20] or 'unknown'}, but {prefect.__version__} is "
            "installed here; bring both to one version, or unset PREFECT_API_URL to use a server of this folder"
        )
