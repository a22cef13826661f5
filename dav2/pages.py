"""Who may ask the pages that dav2 serves on this machine: its own browser pages and its own programs.

A port of 127.0.0.1 is open to every page that a browser shows, and to every name that is made to point at this machine.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
"""Names under which a page of this machine is opened."""


class OwnPages:
    """Refuses a request under a foreign name (400) or from a page of another origin (403), plain or websocket.

    What another program of this machine serves, at another port, is foreign too. Programs send no ``Origin`` at all,
    and pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = TrustedHostMiddleware(self._own_origin, allowed_hosts=list(HOSTS), www_redirect=False)
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _own_origin(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] in ("http", "websocket") else Headers()
        origin = headers.get("origin")
        if origin is not None and not _same_page(origin, headers.get("host", "")):
            await PlainTextResponse("foreign origin", status_code=403)(scope, receive, send)
            return
        await self._inner(scope, receive, send)


def _same_page(origin: str, host: str) -> bool:
    """Whether an origin is a name of this machine with the port that was asked."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        return page.hostname in HOSTS and (page.port or 80) == (asked.port or 80)
    except ValueError:
        return False
