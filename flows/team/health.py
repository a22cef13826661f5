"""Whether one service of the team's stack is well: ``python -m flows.team.health NAME``; exit status 0 says so."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

from flows.team import postgres
from flows.team.settings import TeamError, address, data, inside, libpq, page

PATHS = {"store": "/healthz", "mlflow": "/health", "prefect": "/api/health"}
TIMEOUT = 8.0
LEAST_ROOM = 200_000_000
"""Bytes; PostgreSQL and the store stop where they can write nothing, and say so in their logs alone."""
SOON = timedelta(days=14)
"""Before a certificate's end from which on it is complained of."""


def room(folder: Path) -> str:
    """What is wrong with the disk that a service keeps its data on; empty where nothing is."""
    left = shutil.disk_usage(folder).free
    if left >= LEAST_ROOM:
        return ""
    return f"its disk is full: {left / 1e6:.0f} MB are left at {folder}; make room, and it goes on by itself"


def problem(service: str) -> str:
    """What is wrong with a service, in one line; empty where nothing is."""
    if service == "postgres":
        done = subprocess.run(
            [postgres.program("pg_isready"), "-q", "-t", "5"], env=libpq(os.environ, ""), capture_output=True
        )
        return "" if done.returncode == 0 else f"does not take connections at {':'.join(map(str, address('postgres')))}"
    if service == "proxy":
        return _door()
    try:
        with urllib.request.urlopen(f"{inside(service)}{PATHS[service]}", timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        return f"answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _door() -> str:
    """The proxy: it answers, lets nobody in without a name, and its certificate is of today."""
    # Which authority signed is for its users to judge; here only the proxy of this very stack is asked.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = page("prefect")
    try:
        with urllib.request.urlopen(f"{url}/api/health", timeout=TIMEOUT, context=context):
            return f"{url} lets anybody in; the login is missing from infra/team/Caddyfile"
    except urllib.error.HTTPError as error:
        return _certificate() if error.code == 401 else f"answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _certificate() -> str:
    from cryptography import x509

    name, _, port = page("prefect").removeprefix("https://").rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((name, int(port)), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = time.time()
    if not begins.timestamp() <= now < ends.timestamp():
        return f"the certificate is valid from {begins:%F} to {ends:%F}, and today is {time.strftime('%F')}"
    # One that Caddy made itself lives half a day and is renewed by it.
    if ends - begins > SOON and ends.timestamp() - now < SOON.total_seconds():
        return f"the certificate ends on {ends:%F}; renew it"
    return ""


if __name__ == "__main__":
    try:
        said = room(data()) if "DAV2_TEAM_DATA" in os.environ else ""
        said = said or problem(sys.argv[1])
    except TeamError as trouble:
        said = str(trouble)
    if said:
        print(f"{sys.argv[1]}: {said}", file=sys.stderr)
    sys.exit(bool(said))
