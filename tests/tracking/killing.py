"""Runs an action on the registry in a process of its own, which is killed before a chosen write."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient

WRITES = ("create_", "set_", "delete_", "log_", "finalize_", "restore_", "update_")


def killed(action: Callable[[], Any], before_write: int) -> bool:
    """Do ``action`` in a fork and SIGKILL it before its write number ``before_write``, from 0; false if it had fewer.

    A write is any call of the MLflow client that changes something.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(action, before_write))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"the action itself failed: {process.exitcode}"
    return process.exitcode != 0


def _run(action: Callable[[], Any], before_write: int) -> None:
    left = before_write

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return write(*arguments, **named)

        return call

    for name in [name for name in dir(MlflowClient) if name.startswith(WRITES)]:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    action()
