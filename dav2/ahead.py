"""Work that is begun before it is needed, a bounded number of pieces at a time, and taken in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import TypeVar

Begun = TypeVar("Begun")


def begun_ahead(
    pieces: Iterator[Begun], depth: int | Callable[[], int], cancel: Callable[[Begun], object]
) -> Generator[Begun]:
    """Pieces of work in order, ``depth`` of them begun at any time.

    Args:
        pieces: taking the next one begins it: as a rule it submits a call to a pool and gives the future.
        depth: how many, at least 1; asked before each piece where it changes on the way.
        cancel: called with each piece that was begun and not taken, when the taker stops early.
    """
    waiting: deque[Begun] = deque()
    try:
        while True:
            wanted = depth() if callable(depth) else depth
            waiting.extend(islice(pieces, max(0, wanted - len(waiting))))
            if not waiting:
                return
            yield waiting.popleft()
    finally:
        for piece in waiting:
            cancel(piece)
