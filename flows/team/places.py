"""Where the team's stack lies and listens on a machine without containers.

``DAV2_TEAM`` names its folder (``.dav2/team`` of the project where it is not set), ``DAV2_TEAM_PORT`` the first of the
fourteen ports that it takes, all of them at 127.0.0.1; ``DAV2_PUBLISH`` opens the three of the proxy to others.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.processes import STATE
from flows.team.compose import Service
from flows.team.settings import TeamError

FIRST_PORT = 8443
PAGES = {"PREFECT_PAGE": 0, "MLFLOW_PAGE": 1, "STORE_PAGE": 2}
INSIDE = {"POSTGRES": 3, "PREFECT": 4, "MLFLOW": 5, "STORE": 6}
"""Offsets from the first port; the store takes seven more."""
PORTS = 14


def folder() -> Path:
    """Folder of the stack: secrets, data, logs."""
    return Path(os.environ.get("DAV2_TEAM") or STATE / "team").resolve()


def first_port() -> int:
    """The first of its ports.

    Raises:
        TeamError: ``DAV2_TEAM_PORT`` is no port.
    """
    text = os.environ.get("DAV2_TEAM_PORT", str(FIRST_PORT))
    if not text.isdigit() or not 1024 <= int(text) <= 65535 - PORTS:
        raise TeamError(f"DAV2_TEAM_PORT is '{text}'; name a number from 1024 to {65535 - PORTS}")
    return int(text)


def variables() -> dict[str, str]:
    """What fills the ``${…}`` of ``infra/compose.yaml``."""
    pages = {f"DAV2_{name}": str(first_port() + offset) for name, offset in PAGES.items()}
    return {**os.environ, **pages, "DAV2_SECRETS": str(folder() / "secrets")}


def addresses() -> dict[str, str]:
    """What every service finds in its environment instead of the names that containers have."""
    return {
        **{f"DAV2_{name}": f"127.0.0.1:{first_port() + offset}" for name, offset in INSIDE.items()},
        **{f"DAV2_{name}": str(first_port() + offset) for name, offset in PAGES.items()},
        "DAV2_TEAM_SECRETS": str(folder() / "secrets"),
        "DAV2_BIND": "127.0.0.1",
        # The one door alone may be opened to other machines, and there is a login behind it.
        "DAV2_DOOR": os.environ.get("DAV2_PUBLISH", "127.0.0.1"),
        "DAV2_NAME": os.environ.get("DAV2_NAME", "localhost"),
        "DAV2_TLS": os.environ.get("DAV2_TLS", "internal"),
    }


def of(name: str, service: Service) -> dict[str, str]:
    """The environment of a service as a process: as in its container, but for places and addresses."""
    own = {key: value for key, value in service.environment.items() if key != "HOME"}
    data = folder() / "data" / service.keeps if service.keeps else folder() / "scratch" / name
    data.mkdir(parents=True, exist_ok=True)
    scratch = {"DAV2_TEAM_DATA": str(data), "DAV2_TEAM_SCRATCH": str(folder() / "scratch" / name)}
    return {**os.environ, **own, **addresses(), **scratch, "PYTHONUNBUFFERED": "1"}
