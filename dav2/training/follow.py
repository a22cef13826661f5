"""What the first rank writes, passed on from its files wherever it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from dav2.training.journal import EVALUATIONS, METRICS, Follower, Line

_POLL_SECONDS = 1.0


class Events:
    """While the block runs, ``on_event`` gets every line that is added to the journals in ``folder``."""

    def __init__(self, folder: Path, on_event: Callable[[Line], None] | None) -> None:
        self.followers = [Follower(folder / name) for name in (METRICS, EVALUATIONS)]
        self.on_event = on_event
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self._pass_on()

    def _follow(self) -> None:
        while not self.done.wait(_POLL_SECONDS):
            self._pass_on()

    def _pass_on(self) -> None:
        for follower in self.followers:
            for line in follower.new_lines():
                if self.on_event is not None:
                    self.on_event(line)
