"""Depth, and normals, as pictures: the one way for predictions, previews, sheets and the report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 128
"""Grey of pixels that are not known."""
BLOCK = 2**20
"""Pixels that are coloured at a time."""
STRIP = 50
"""Width in pixels of the white strip between a photograph and its depth."""


class Palette:
    """A named matplotlib colour map as a table of 256 colours.

    Raises:
        ValueError: there is no such colour map.
    """

    def __init__(self, name: str) -> None:
        from matplotlib import colormaps

        if name not in colormaps:
            raise ValueError(f"no colour map '{name}'; Spectral_r, inferno, magma, turbo and gray are some there are")
        self.table = (np.asarray(colormaps[name](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)

    def __call__(
        self, depth: NDArray[np.floating], low: float | None = None, high: float | None = None
    ) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) of a float map (H, W).

        ``low`` and below is the first colour, ``high`` and above the last; left out, they are the least and greatest
        finite value. A flat map is all of the first colour, and what is not finite is grey.
        """
        if low is None or high is None:
            known = depth[np.isfinite(depth)] if not np.isfinite(depth).all() else depth
            low = float(known.min(initial=np.inf)) if low is None else low
            high = float(known.max(initial=-np.inf)) if high is None else high
        picture = np.empty((*depth.shape, 3), np.uint8)
        # Some rows at a time: what is computed in between would take many times the map.
        rows = max(1, BLOCK // max(1, depth.shape[1]))
        for first in range(0, depth.shape[0], rows):
            block = depth[first : first + rows]
            finite = np.isfinite(block)
            share = (np.where(finite, block, low) - low) / (high - low) if high > low else np.zeros(block.shape)
            coloured = self.table[(share.clip(0, 1) * 255).round().astype(np.uint8)]
            coloured[~finite] = UNKNOWN
            picture[first : first + rows] = coloured
        return picture


@dataclass
class RunningRange:
    """Colour range of a video: follows the frames slowly, so that colours do not flicker.

    Attributes:
        keep: share of the old range that each frame leaves; 0.95 follows a cut within about two seconds.
    """

    keep: float = 0.95
    low: float | None = None
    high: float | None = None

    def update(self, depth: NDArray[np.float32]) -> tuple[float, float]:
        """Take in a frame; the range to colour it with. The first frame sets the range."""
        low, high = float(depth.min()), float(depth.max())
        if self.low is None or self.high is None:
            self.low, self.high = low, high
        self.low += (1 - self.keep) * (low - self.low)
        self.high += (1 - self.keep) * (high - self.high)
        return self.low, self.high


def beside(rgb: NDArray[np.uint8], picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Photograph, white strip, depth."""
    strip: NDArray[np.generic] = np.full((rgb.shape[0], STRIP, 3), 255, np.uint8)
    return np.concatenate([rgb, strip, picture], axis=1)


@cache
def palette(name: str = "Spectral_r") -> Palette:
    """The colour map ``name``; the default is that of the paper's figures, dark blue far and red near."""
    return Palette(name)


def coloured(nearness: NDArray[np.floating], low: float | None = None, high: float | None = None) -> NDArray[np.uint8]:
    """Picture (H, W, 3) of a map (H, W) in which larger is nearer: dark blue is far, red near, unknown grey."""
    return palette()(nearness, low, high)


def leaning(normals: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Picture (H, W, 3) of unit vectors (H, W, 3), (n + 1) / 2: what faces the viewer is light blue, unknown grey."""
    pixels = np.where(np.isfinite(normals), normals, 0) * 127.5 + 127.5
    return pixels.clip(0, 255).round().astype(np.uint8)
