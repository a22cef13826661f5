"""Processes forked from a server that has imported everything and runs nothing: they start in milliseconds.

A fork of the test process itself would inherit locks that other threads of it held, and could wait for them for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from queue import Empty
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preload"])
PATIENCE = 500.0


def start(action: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start ``action`` in a process of its own, with today's environment."""
    process = CONTEXT.Process(target=_enter, args=(dict(os.environ), action, arguments), daemon=True)
    process.start()
    return process


def crowd(actions: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do all of them at once, each in a process of its own; what they return, in any order.

    Raises:
        AssertionError: one of them failed (with its traceback) or came to no end.
    """
    together, outcomes = CONTEXT.Barrier(len(actions)), CONTEXT.Queue()
    workers = [start(_join_in, action, together, outcomes) for action in actions]
    returned = []
    deadline = time.monotonic() + PATIENCE
    while len(returned) < len(actions):
        try:
            failure, value = outcomes.get(timeout=1)
        except Empty:
            codes = [worker.exitcode for worker in workers]
            assert time.monotonic() < deadline and not any(codes), f"a worker came to no end; exit codes: {codes}"
            continue
        assert failure is None, failure
        returned.append(value)
    for worker in workers:
        worker.join()
    return returned


def _join_in(action: Callable[[], Any], together: Any, outcomes: Any) -> None:
    try:
        together.wait()
        outcomes.put((None, action()))
    except BaseException:
        outcomes.put((traceback.format_exc(), None))


def _enter(environment: Mapping[str, str], action: Callable[..., None], arguments: Sequence[Any]) -> None:
    # The server's environment is that of the moment when it was started.
    os.environ.clear()
    os.environ.update(environment)
    action(*arguments)
