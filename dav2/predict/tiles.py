"""Where tiles of a photograph lie, what each counts for, and how a small map of the whole is read below one.

Tiles are equal and overlap. The weight of a tile falls off linearly towards those of its borders at which another tile
goes on, and is the product of one weight of rows and one of columns. Divided by the sum over the tiles of an axis these
add up to 1 at every pixel, so that maps are added up without a second array of weights (the averages of MultiDiffusion,
arXiv 2302.08113, eq. 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST_SIDE = 16
"""Pixels of the smallest tile."""
MOST_OVERLAP = 0.9
"""Largest share of a tile's side that the next one covers as well."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """How photographs are cut.

    Attributes:
        side: of a tile, in pixels of the photograph.
        overlap: share of it that the next tile covers as well, 0 to 0.9.
    """

    side: int
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.side < LEAST_SIDE:
            raise ValueError(f"a tile must have at least {LEAST_SIDE} pixels a side, not {self.side}")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise ValueError(f"tiles overlap by 0 to {MOST_OVERLAP} of their side, not {self.overlap}")


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiles along one side of a photograph.

    Attributes:
        starts: first pixel of each.
        length: pixels of each.
        weights: float32 (tiles, length); over all tiles they add up to 1 at every pixel.
    """

    starts: list[int]
    length: int
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile.

    Attributes:
        rows, columns: of the photograph.
        down, across: weights of its rows and of its columns, float32 (h,) and (w,).
    """

    rows: slice
    columns: slice
    down: NDArray[np.float32]
    across: NDArray[np.float32]

    @property
    def weight(self) -> NDArray[np.float32]:
        """Of each pixel, float32 (h, w); made when asked for, since all tiles are listed before the first is seen."""
        return self.down[:, None] * self.across


def axis(total: int, tiling: Tiling) -> Axis:
    """Tiles along ``total`` pixels, as few as there can be and at equal distances."""
    length = min(tiling.side, total)
    shared = min(round(tiling.overlap * length), length - 1)
    count = max(1, math.ceil((total - shared) / (length - shared)))
    starts = [round(number * (total - length) / max(1, count - 1)) for number in range(count)]
    weights = np.ones((count, length))
    inside = np.arange(length) + 0.5
    for number, (one, after) in enumerate(pairwise(starts)):
        if (both := one + length - after) > 0:
            weights[number] = np.minimum(weights[number], (length - inside) / both)
            weights[number + 1] = np.minimum(weights[number + 1], inside / both)
    sums = np.zeros(total)
    for start, weight in zip(starts, weights, strict=True):
        sums[start : start + length] += weight
    shares = [weight / sums[start : start + length] for start, weight in zip(starts, weights, strict=True)]
    return Axis(starts, length, np.stack(shares).astype(np.float32))


def cut(shape: tuple[int, int], tiling: Tiling) -> Iterator[Tile]:
    """Tiles of a photograph (H, W), row by row; a single one where it is no larger than a tile."""
    down, across = (axis(total, tiling) for total in shape)
    for top, tall in zip(down.starts, down.weights, strict=True):
        for left, wide in zip(across.starts, across.weights, strict=True):
            rows, columns = slice(top, top + down.length), slice(left, left + across.length)
            yield Tile(rows, columns, tall, wide)


def below(whole: NDArray[np.float32], tile: Tile, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A small map of the whole photograph at the pixels of one tile.

    Linear between the middles of its pixels, and beyond the outermost, so that a plane stays a plane up to the borders.

    Args:
        whole: float32 (…, h, w).
        shape: (H, W) of the photograph.

    Returns:
        float32 (…, rows, columns).
    """
    tall = _between(np.moveaxis(whole, -2, -1), tile.rows, shape[0])
    return _between(np.moveaxis(tall, -1, -2), tile.columns, shape[1])


def _between(values: NDArray[np.float32], part: slice, total: int) -> NDArray[np.float32]:
    """The last axis, ``total`` pixels long in the photograph, at those of ``part``."""
    small = values.shape[-1]
    place = (np.arange(part.start, part.stop) + 0.5) * (small / total) - 0.5
    if small == 1:
        return np.repeat(values, len(place), axis=-1)
    first = np.clip(np.floor(place).astype(int), 0, small - 2)
    share = (place - first).astype(np.float32)
    return values[..., first] * (1 - share) + values[..., first + 1] * share
