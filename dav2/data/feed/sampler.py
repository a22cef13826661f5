"""Which frame comes when: a pure function of (seed, epoch, position), so the whole state of a loader is one integer.

Frames lie in shards; a run is up to 64 neighbours of one shard. Every epoch shuffles the runs, lays them end to
end, cuts the line into windows of 2,048 frames and shuffles inside each window. Any position is found without
making the epoch's whole order (62 million frames need arrays for a million runs, not for the frames), the result
knows nothing of ranks or workers, and the frames of one window come from some 32 short sequential stretches of the
files.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

RUN = 64
WINDOW = 2048

ORDER, FRAME, BATCH, MIX, VIEW = 0, 1, 2, 3, 4
"""Independent streams of random numbers."""


def random_stream(seed: int, stream: int, *position: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments."""
    return np.random.default_rng([seed, stream, *position])


class FrameOrder:
    """Order in which frames are visited, epoch after epoch.

    Args:
        shard_sizes: frames in each shard; frames are numbered shard after shard.
        seed: of the shuffles.
    """

    def __init__(self, shard_sizes: list[int] | NDArray[np.int64], seed: int, *, run: int = RUN, window: int = WINDOW):
        sizes = np.asarray(shard_sizes, np.int64)
        self.frames = int(sizes.sum())
        if self.frames == 0:
            raise ValueError("there are no frames to order")
        self.seed, self.window = seed, window
        pieces = -(-sizes // run)
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)
        within = (np.arange(pieces.sum()) - first) * run
        self._starts = np.repeat(np.cumsum(sizes) - sizes, pieces) + within
        self._lengths = np.minimum(np.repeat(sizes, pieces) - within, run)
        self._epoch = functools.lru_cache(2)(self._shuffled_runs)
        self._window = functools.lru_cache(8)(self._shuffled_window)

    def frame(self, position: int) -> int:
        """Number of the frame at ``position`` ≥ 0 of the endless sequence of epochs."""
        epoch, place = divmod(position, self.frames)
        window, offset = divmod(place, self.window)
        return int(self._window(epoch, window)[offset])

    def window_of(self, position: int) -> tuple[int, int]:
        """Epoch and number of the window that holds a position."""
        epoch, place = divmod(position, self.frames)
        return epoch, place // self.window

    def end_of(self, window: tuple[int, int]) -> int:
        """The first position after a window."""
        epoch, number = window
        return epoch * self.frames + min((number + 1) * self.window, self.frames)

    def runs(self, window: tuple[int, int]) -> list[int]:
        """Numbers of the runs that a window takes its frames from."""
        epoch, number = window
        starts, ends = self._epoch(epoch)
        first, last = number * self.window, min((number + 1) * self.window, self.frames) - 1
        begin, end = np.searchsorted(ends, [first, last], side="right")
        found: list[int] = np.searchsorted(self._starts, starts[begin : end + 1]).tolist()
        return found

    def run(self, frame: int) -> int:
        """Number of the run that holds a frame."""
        return int(np.searchsorted(self._starts, frame, side="right")) - 1

    def bounds(self, run: int) -> tuple[int, int]:
        """First frame of a run, and the first after it."""
        return int(self._starts[run]), int(self._starts[run] + self._lengths[run])

    def epoch(self, epoch: int) -> NDArray[np.int64]:
        """All frames of one epoch in their order: a permutation of 0 … frames − 1."""
        return np.concatenate([self._window(epoch, w) for w in range(-(-self.frames // self.window))])

    def _shuffled_runs(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts of the runs in this epoch's order, and where each ends on the epoch's line."""
        order = random_stream(self.seed, ORDER, epoch).permutation(len(self._starts))
        return self._starts[order], np.cumsum(self._lengths[order])

    def _shuffled_window(self, epoch: int, window: int) -> NDArray[np.int64]:
        starts, ends = self._epoch(epoch)
        places = np.arange(window * self.window, min((window + 1) * self.window, self.frames))
        places = random_stream(self.seed, ORDER, epoch, window).permutation(places)
        runs = np.searchsorted(ends, places, side="right")
        before = np.where(runs > 0, ends[runs - 1], 0)
        return starts[runs] + places - before
