"""This project's Prefect server: Prefect's own application, which answers requests for this machine's own pages alone.

Prefect has settings for who may read across origins, for tokens against forged requests and for a string that opens it;
it has none for the ``Host`` header, so that a foreign name that is made to point at 127.0.0.1 would be answered.
Run as ``python -m flows.prefect_app PORT`` with the settings of :func:`settings` in the environment.
"""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")


def settings(port: int, auth: str) -> dict[str, str]:
    """Environment of a server at ``port`` that only holders of ``auth`` can use."""
    return {
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}:{port}" for host in HOSTS),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


class OwnOrigin:
    """Refuses what a page of another origin sends, be it plain or a websocket; programs send no ``Origin`` at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] in ("http", "websocket") else None
        if origin is not None and urlsplit(origin).hostname not in HOSTS:
            await PlainTextResponse("foreign origin", status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def build() -> ASGIApp:
    """Prefect's application behind both checks."""
    from prefect.server.api.server import create_app

    return TrustedHostMiddleware(OwnOrigin(create_app(final=True)), allowed_hosts=list(HOSTS), www_redirect=False)


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
