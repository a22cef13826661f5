"""This project's Prefect server: Prefect's own application, which answers requests for this machine's own pages alone.

Prefect has settings for who may read across origins, for tokens against forged requests and for a string that opens it;
it has none for the ``Host`` header (:class:`dav2.pages.OwnPages` has).
Run as ``python -m flows.prefect_app PORT`` with the settings of :func:`settings` in the environment.
"""

from __future__ import annotations

import os
import sys

from starlette.types import ASGIApp

from dav2.pages import HOSTS, OwnPages
from flows.documents import Documents

LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""In Prefect's folder: with those kept in memory, a place whose holder died with the server would be taken for ever."""


def settings(port: int, auth: str) -> dict[str, str]:
    """Environment of a server at ``port`` that only holders of ``auth`` can use."""
    return {
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}:{port}" for host in HOSTS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        "DO_NOT_TRACK": "1",
    }


def build() -> ASGIApp:
    """Prefect's application and the project's documents behind our own checks."""
    from prefect.server.api.server import create_app

    return OwnPages(Documents(create_app(final=True), os.environ["PREFECT_SERVER_API_AUTH_STRING"]))


def main(port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    import uvicorn
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    uvicorn.run(
        build(), host="127.0.0.1", port=port, timeout_keep_alive=api.keepalive_timeout, log_level="warning",
        ws_ping_interval=api.websocket_ping_interval, ws_ping_timeout=api.websocket_ping_timeout,
    )  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]))
