"""DA-2K's point pairs from exact depth: two points on different things, clearly apart in depth, away from borders."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Capture
from dav2.scenes.layouts.da2k import Pair
from dav2.scenes.textures import Random

MARGIN = 4
DRAWS = 400


def draw_pairs(
    capture: Capture, rng: Random, count: int, *, ratio: float = 1.25, against_row: float = 0.5
) -> list[Pair]:
    """Up to ``count`` pairs whose depths differ by ``ratio`` or more.

    People asked which of two points is closer mostly choose the lower one, and pictures taken upright bear them out.
    So that this alone does not score, the nearer point is the higher one in a share ``against_row`` of the pairs,
    as far as the picture has such pairs.
    """
    rows, columns = np.nonzero(_calm(capture))
    if not rows.size:
        return []
    found: list[list[Pair]] = [[], []]
    for _ in range(DRAWS):
        first, second = rng.integers(rows.size, size=2)
        points = [(int(rows[k]), int(columns[k])) for k in (first, second)]
        depths = [float(capture.depth[p]) for p in points]
        if capture.shape[points[0]] == capture.shape[points[1]] or max(depths) < ratio * min(depths):
            continue
        near, far = points if depths[0] < depths[1] else points[::-1]
        if near[0] != far[0]:
            found[int(near[0] < far[0])].append(Pair(near, far))
    wanted = int(rng.binomial(count, against_row))
    lower, higher = found[0][: count - wanted], found[1][:wanted]
    spare = found[0][len(lower) :] + found[1][len(higher) :]
    pairs = lower + higher + spare[: count - len(lower) - len(higher)]
    return [pairs[k] for k in rng.permutation(len(pairs))]


def _calm(capture: Capture) -> NDArray[np.bool_]:
    """Pixels with one thing and nearly one depth all around, far from the border of the picture."""
    known = np.isfinite(capture.depth)
    window = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    depth = np.where(known, capture.depth, 1e6).astype(np.float32)
    same_depth = cv2.dilate(depth, window) < 1.15 * cv2.erode(depth, window)
    things = capture.shape.astype(np.int16)
    same_thing = cv2.dilate(things, window) == cv2.erode(things, window)
    inside = np.zeros(depth.shape, bool)
    inside[2 * MARGIN : -2 * MARGIN, 2 * MARGIN : -2 * MARGIN] = True
    return known & same_depth & same_thing & inside
