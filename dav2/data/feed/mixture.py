"""Sources mixed by probability: every batch comes from one source, drawn by its share, and has that source's crop.

Frames of different shape cannot share a batch, so the draw is one a batch (arXiv 2312.02145, section 4.1, mixes so).
Which source batch n comes from, and how many batches of it came before, is a function of (seed, n) alone: draws are
made in blocks, whose counts are added up once. Each source goes through epochs of its own.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dav2.data.feed.sampler import MIX, FrameOrder, random_stream

BLOCK = 4096
"""Batches that are drawn together."""


@dataclass(frozen=True, slots=True)
class Portion:
    """How much of a run one source makes up.

    Attributes:
        share: relative to the shares of the others, > 0.
        crop: (height, width) of its crops in pixels; ``None`` is the run's.
    """

    share: float
    crop: tuple[int, int] | None = None


class MixedOrder:
    """Order in which frames of several sources are visited, one source a batch.

    Args:
        shard_sizes: frames in each shard, source after source.
        source_sizes: frames of each source.
        portions: of each source.
        batch: frames of a batch.
        seed: of draws and shuffles.

    Raises:
        ValueError: a source has no frames, or there is another number of portions.
    """

    def __init__(
        self,
        shard_sizes: NDArray[np.int64],
        source_sizes: Sequence[int],
        portions: Sequence[Portion],
        batch: int,
        seed: int,
    ) -> None:
        if len(portions) != len(source_sizes):
            raise ValueError(f"{len(source_sizes)} sources are mixed by {len(portions)} portions; give one for each")
        if empty := [str(number) for number, size in enumerate(source_sizes) if size == 0]:
            raise ValueError(f"source number {', '.join(empty)} of the mixture has no frame left to draw")
        self.seed, self.batch = seed, batch
        self._shares = np.array([portion.share for portion in portions]) / sum(portion.share for portion in portions)
        self._first = np.cumsum(source_sizes) - np.asarray(source_sizes)
        ends = np.searchsorted(np.cumsum(shard_sizes), np.cumsum(source_sizes)) + 1
        begins = [0, *ends[:-1]]
        self._orders = [FrameOrder(shard_sizes[a:b], seed) for a, b in zip(begins, ends, strict=True)]
        self._lock = threading.Lock()
        self._drawn = functools.lru_cache(4)(self._draw)
        self._before: list[NDArray[np.int64]] = [np.zeros(len(portions), np.int64)]

    def source(self, index: int) -> int:
        """Number of the source that batch ``index`` ≥ 0 comes from."""
        block, place = divmod(index, BLOCK)
        return int(self._drawn(block)[place])

    def frame(self, position: int) -> int:
        """Number of the frame at ``position`` ≥ 0 of the endless sequence."""
        index, row = divmod(position, self.batch)
        source = self.source(index)
        return int(self._first[source]) + self._orders[source].frame(self._earlier(index, source) * self.batch + row)

    def _earlier(self, index: int, source: int) -> int:
        """Batches of ``source`` before batch ``index``."""
        block, place = divmod(index, BLOCK)
        # Batches are made by several threads.
        with self._lock:
            while len(self._before) <= block:
                drawn = self._drawn(len(self._before) - 1)
                self._before.append(self._before[-1] + np.bincount(drawn, minlength=len(self._orders)))
        return int(self._before[block][source] + np.count_nonzero(self._drawn(block)[:place] == source))

    def _draw(self, block: int) -> NDArray[np.int64]:
        rng = random_stream(self.seed, MIX, block)
        return rng.choice(len(self._orders), BLOCK, p=self._shares).astype(np.int64)
