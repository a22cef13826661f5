"""Runs an action on the registry in a process of its own, which is killed or frozen before a chosen write."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from mlflow import MlflowClient

from tests import forkserver

WRITES = ("create_", "set_", "delete_", "log_", "finalize_", "restore_", "update_")


def killed(action: Callable[[], Any], before_write: int) -> bool:
    """Do ``action`` in another process, killed before its write number ``before_write``, from 0; false if it had fewer.

    A write is any call of the MLflow client that changes something.
    """
    process = forkserver.start(_run, action, before_write, signal.SIGKILL)
    process.join(forkserver.PATIENCE)
    assert process.exitcode in (0, -signal.SIGKILL), f"the action itself failed: {process.exitcode}"
    return process.exitcode != 0


def frozen(action: Callable[[], Any], before_write: int) -> psutil.Process | None:
    """Do ``action`` in another process, which stands still before its write number ``before_write``.

    Returns:
        the process, stopped; :func:`wake` lets it go on. ``None`` if the action had fewer writes and has ended.
    """
    started = forkserver.start(_run, action, before_write, signal.SIGSTOP)
    assert started.pid is not None
    process, deadline = psutil.Process(started.pid), time.monotonic() + forkserver.PATIENCE
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_STOPPED:
                return process
        if started.exitcode is not None:
            assert started.exitcode == 0, f"the action itself failed: {started.exitcode}"
            return None
        time.sleep(0.02)
    raise AssertionError("the action came to no end")


def wake(process: psutil.Process) -> None:
    """Let a frozen process go on to its end."""
    process.resume()
    process.wait(forkserver.PATIENCE)


def _run(action: Callable[[], Any], before_write: int, what: signal.Signals) -> None:
    left = before_write

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), what)
            left -= 1
            return write(*arguments, **named)

        return call

    for name in [name for name in dir(MlflowClient) if name.startswith(WRITES)]:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    action()
