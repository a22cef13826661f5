"""What a person's shell needs to use the team's stack: one file of variables, and the authorities that it trusts."""

from __future__ import annotations

import os
from pathlib import Path

import certifi

from flows.team.service import private
from flows.team.settings import ADMIN, page, s3_environment, secret


def authorities(folder: Path) -> Path | None:
    """A file of the usual authorities and the stack's own; ``None`` where the stack's certificate is of a usual one."""
    found = sorted((folder / "data").glob("proxy/**/pki/authorities/local/root.crt"))
    if os.environ.get("DAV2_TLS", "internal") != "internal" or not found:
        return None
    path = folder / "authorities.pem"
    path.write_text(certifi.contents() + "\n" + found[0].read_text())
    return path


def variables(folder: Path, name: str = ADMIN, password: str | None = None) -> dict[str, str]:
    """The variables of a person; the first one's password is a secret of the stack."""
    password = password or secret("admin")
    own = {
        "PREFECT_API_URL": f"{page('prefect')}/api",
        "PREFECT_API_AUTH_STRING": secret("prefect"),
        "MLFLOW_TRACKING_URI": page("mlflow"),
        "MLFLOW_TRACKING_USERNAME": name,
        "MLFLOW_TRACKING_PASSWORD": password,
        **s3_environment(page("store")),
    }
    bundle = authorities(folder)
    if bundle is not None:
        names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")
        own |= dict.fromkeys(names, str(bundle))
    return own


def write_environment(folder: Path) -> Path:
    """Write the first person's variables to ``dav2.env`` below ``folder``, for that person alone to read."""
    lines = [f"{name}='{value}'" for name, value in variables(folder).items()]
    return private(folder / "dav2.env", "\n".join([*lines, ""]))
