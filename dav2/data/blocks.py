"""Passing over a large map a few rows at a time, so that what is computed in between stays in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

PIXELS = 2**17
"""Pixels of a block: half a megabyte of float32, of which several fit into a core's second-level cache."""


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """Slices of neighbouring rows that cover (``height``, ``width``)."""
    rows = max(1, PIXELS // max(1, width))
    for first in range(0, height, rows):
        yield slice(first, first + rows)
