"""A client of MLflow that asks again when its SQLite database was busy, and the wait for a server that is restarted.

SQLite refuses at once, without the time-out that MLflow sets, where waiting could only end in a deadlock: two readers
that both want to write. What it refused was rolled back whole, so that the same call may be made again.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tenacity import retry, retry_if_exception, stop_after_attempt, stop_after_delay, wait_incrementing, wait_random

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

BUSY_FOR = 20.0
"""Seconds for which a busy database is asked again."""
ATTEMPTS = 3
PAUSE = 1.0
"""Seconds before a server that did not answer is asked again; longer each time."""


class PatientClient(MlflowClient):
    """MLflow's client; each call is made again as long as the database is locked by others."""

    def __getattribute__(self, name: str) -> Any:
        """The attribute, as a call that is repeated if it is a public method."""
        found = super().__getattribute__(name)
        return found if name.startswith("_") or not callable(found) else patiently(found)


def patiently(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """``call``, made again after pauses of chance length while SQLite says that the database is locked."""
    again = retry(
        retry=retry_if_exception(is_busy), stop=stop_after_delay(BUSY_FOR), wait=wait_random(0.01, 0.2), reraise=True
    )
    return again(call)


def is_busy(error: BaseException) -> bool:
    """Whether SQLite refused because somebody else writes."""
    return isinstance(error, MlflowException) and "database is locked" in str(error)


def wait_for(uri: str) -> None:
    """Ask a server for its health a few times, because one that is restarted is back in seconds.

    Raises:
        OSError: it does not answer.
    """

    @retry(stop=stop_after_attempt(ATTEMPTS), wait=wait_incrementing(PAUSE, PAUSE), reraise=True)
    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=5.0):
                return
        except urllib.error.HTTPError:
            return  # It answers; a server with authentication refuses anonymous questions.

    ask()
