"""Heavy stages one after the other, where several projects share a Prefect server: a limit that the server keeps.

The team's stack sets it (``DAV2_TEAM_HEAVY``); a project's own server has none, and there nothing waits. A place is
held by a lease, so that a stage which is killed gives it back within :data:`LEASE` seconds. What a job of Slurm does is
not counted: it waits in Slurm's own queue.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

from prefect.logging import get_run_logger
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from dav2.params import Params
from flows import page
from flows.access import Access

LIMIT = "dav2-heavy"
STAGES = ("train", "pseudo_label", "codec", "latents", "evaluate")
"""Flows that fill a machine."""
LEASE = 120.0
"""Seconds that a place is kept for a stage which gives no sign; the server may be away for as long."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


def set_limit(access: Access, most: int) -> None:
    """Let at most ``most`` heavy stages run at a time on everything that reports to the server; 0 means any number."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with (
        temporary_settings({PREFECT_API_URL: access.url, PREFECT_API_AUTH_STRING: access.auth}),
        get_client(sync_client=True) as client,
    ):
        if most:
            client.upsert_global_concurrency_limit_by_name(LIMIT, most)
            return
        try:
            client.delete_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            return


def in_turn(stage: Callable[_P, _T], name: str, params: Params) -> Callable[_P, _T]:
    """``stage``, which waits for its turn where it is heavy and the server limits such."""
    if name not in STAGES or _queued_elsewhere(name, params):
        return stage

    @functools.wraps(stage)
    def run(*arguments: _P.args, **named: _P.kwargs) -> _T:
        slot = _take() if page.shown(_limited) else None
        try:
            return stage(*arguments, **named)
        finally:
            if slot is not None:
                page.shown(slot.__exit__, None, None, None)

    return run


def _queued_elsewhere(name: str, params: Params) -> bool:
    return (name == "train" and params.compute.launcher == "slurm") or (
        name == "pseudo_label" and params.pseudo_label.runner == "slurm"
    )


def _limited() -> bool:
    """Whether the server has the limit."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            return bool(client.read_global_concurrency_limit_by_name(LIMIT).active)
        except ObjectNotFound:
            return False


def _take() -> AbstractContextManager[None] | None:
    """A place, waited for; ``None`` where the server went away meanwhile."""
    from prefect.concurrency.sync import concurrency

    logger, begun = get_run_logger(), time.monotonic()
    logger.info(f"waiting for a place among the heavy stages of this server (limit '{LIMIT}')")
    # A server that is away costs the place, not the work.
    slot = concurrency(LIMIT, lease_duration=LEASE, raise_on_lease_renewal_failure=False)

    def enter() -> bool:
        slot.__enter__()
        return True

    if not page.shown(enter):
        return None
    logger.info(f"took a place after {time.monotonic() - begun:.0f} s")
    return slot
