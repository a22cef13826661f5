"""Noise of few light paths, removed from the light and not from the textures.

Radiance is divided by albedo, the quotient (light arriving) is smoothed by an edge-avoiding à-trous wavelet (Dammertz
et al. 2010) that stops at borders of things, at creases and at jumps in depth, and multiplied back.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.scenes.surfaces import Seen

Picture = NDArray[np.float32]

ROUNDS = 4
NORMAL_SHARPNESS = 6.0
DEPTH_SHARPNESS = 25.0
FIREFLY = 3.0
TAPS = ((-1, 0.25), (0, 0.5), (1, 0.25))


def denoise(radiance: Picture, paint: Picture, seen: Seen, keep: NDArray[np.bool_]) -> Picture:
    """Smooth (H, W, 3) ``radiance`` of surfaces of reflectance ``paint``; ``keep`` pixels only lose their specks."""
    paint = np.maximum(np.where(keep[..., None], 1, paint), 0.02).astype(np.float32)
    arriving = radiance / paint
    middle = cv2.merge([cv2.medianBlur(np.ascontiguousarray(channel), 5) for channel in cv2.split(arriving)])
    log_depth = np.log(np.where(np.isfinite(seen.depth), seen.depth, 1e5)).astype(np.float32)
    guide = np.concatenate([seen.normal * NORMAL_SHARPNESS, log_depth[..., None]], axis=-1).astype(np.float32)
    light = np.minimum(arriving, FIREFLY * middle + 1e-3)
    for level in range(ROUNDS):
        light = _smooth(light, guide, seen.things, 2**level)
    sky = (seen.things < 0)[..., None]
    return np.where(sky, radiance, np.where(keep[..., None], middle, light * paint)).astype(np.float32)


def _smooth(light: Picture, guide: Picture, things: NDArray[np.int16], reach: int) -> Picture:
    """One 3 × 3 pass with holes of ``reach`` pixels."""
    height, width = things.shape
    padded = [np.pad(a, [(reach, reach)] * 2 + [(0, 0)] * (a.ndim - 2), mode="edge") for a in (light, guide, things)]
    total, weight = np.zeros_like(light), np.zeros((height, width), np.float32)
    for row, row_share in TAPS:
        for column, column_share in TAPS:
            top, left = reach * (1 + row), reach * (1 + column)
            other, other_guide, other_things = (a[top : top + height, left : left + width] for a in padded)
            change = np.subtract(other_guide, guide)
            crease = np.einsum("hwc,hwc->hw", change[..., :3], change[..., :3])
            jump = np.abs(change[..., 3]) * (DEPTH_SHARPNESS / reach)
            share = row_share * column_share * np.exp(-crease - jump) * (other_things == things)
            total += share[..., None] * other
            weight += share
    return np.asarray(total / weight[..., None], np.float32)
