"""The report and the Data Docs behind links: a browser opens no ``file://`` address from a page.

The project's Prefect server serves them below a path that holds a digest of the project's string, so that whoever
cannot open the page cannot open these either. They run in a sandbox of the browser: a script that got into one could
not read what the Prefect page keeps there.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dav2 import layout
from flows import processes
from flows.access import Access

FOLDERS = (layout.REPORTS, layout.QUALITY)
"""What is served, below the project folder."""
SANDBOX = b"sandbox allow-scripts allow-popups"


class Documents:
    """``app``, and beside it the project's documents for holders of ``auth``."""

    def __init__(self, app: ASGIApp, auth: str) -> None:
        self._app, self._prefix = app, prefix(auth)
        routes = [Mount(f"{self._prefix}/{name}", StaticFiles(directory=name, check_dir=False)) for name in FOLDERS]
        self._documents = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not str(scope["path"]).startswith(f"{self._prefix}/"):
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer: MutableMapping[str, Any] = message
                answer["headers"] = [*answer.get("headers", []), (b"content-security-policy", SANDBOX)]
            await send(message)

        await self._documents(scope, receive, guarded)


def prefix(auth: str) -> str:
    """Where the documents of the project with this string are served."""
    return f"/documents/{hashlib.sha256(f'documents of {auth}'.encode()).hexdigest()[:40]}"


def address(access: Access, path: str) -> str | None:
    """Link to a file of :data:`FOLDERS`; ``None`` where the server of the page is not this folder's own."""
    own = processes.running("prefect")
    if own is None or access.auth is None or access.url.rstrip("/") != f"{own.url}/api":
        return None
    return f"{own.url}{prefix(access.auth)}/{path}"
