"""The Prefect page while a stage runs: worth showing work on, never worth losing it for.

A server may be killed, or stop to answer, in the middle of a stage. The stage then goes on without it: nothing more is
sent there, and what its end would report is left out, because Prefect's client asks a dead server for minutes and then
fails a stage whose work is done.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_type_hints

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

from flows.access import Access, answer

P = ParamSpec("P")
T = TypeVar("T")

_NOISY = ("prefect.events.clients", "prefect._internal.concurrency", "prefect.server.utilities", "httpx")
_said: list[str] = []


def access_in_use() -> Access:
    """The server that the running flow reports to."""
    return Access(PREFECT_API_URL.value() or "", PREFECT_API_AUTH_STRING.value())


def answers() -> bool:
    """Whether the server still answers; that it does not is said once."""
    access = access_in_use()
    if answer(access, timeout=1.0 if _said else 30.0)[0] == 200:
        return True
    if not _said:
        _said.append(access.url)
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        print(
            f"the Prefect server {access.url} no longer answers; the stage goes on, but its page will lack the rest",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return False


def shown(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
    """Result of ``call``, which puts something on the page; ``None`` where there is no page any more."""
    if not answers():
        return None
    try:
        return call(*arguments, **named)
    except Exception:
        # Killed in between is no matter; anything that a server which answers refuses is our own mistake.
        if answers():
            raise
        return None


def artifact_key(name: str) -> str:
    """``name`` as Prefect takes keys of artifacts: lower-case letters and digits, everything else a dash."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "artifact"


def outlives_server(stage: Callable[..., T], name: str) -> Callable[..., T]:
    """``stage``, which ends this process by itself, with its own exit status, where the server is gone at its end."""

    @functools.wraps(stage)
    def run(*arguments: object, **named: object) -> T:
        try:
            result = stage(*arguments, **named)
        except BaseException as error:
            if not answers():
                _leave(f"{name}: {str(error) or type(error).__name__}", 1)
            raise
        if not answers():
            _leave(f"{name}: the work is done and kept; only the Prefect page does not show its end", 0)
        return result

    # Prefect checks a stage's parameters by their types, and would look for the names of those in this file.
    run.__annotations__ = get_type_hints(stage)
    run.__signature__ = inspect.signature(stage, eval_str=True)  # type: ignore[attr-defined]
    return run


def _leave(message: str, status: int) -> None:
    """End at once: the usual way out waits minutes for logs and events that nobody takes."""
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
