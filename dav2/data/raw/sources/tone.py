"""Hypersim's tone map, which turns HDR radiance into the pictures that people see (apple/ml-hypersim)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAMMA = 2.2
LUMA = (0.3, 0.59, 0.11)


def tone_scale(linear: NDArray[np.float32], valid: NDArray[np.bool_]) -> float:
    """Factor that brings brightness 0.3 R + 0.59 G + 0.11 B at its 90th percentile to 0.8 after the gamma.

    Args:
        linear: float32 (H, W, 3), finite and ≥ 0.
        valid: bool (H, W), pixels that show geometry; without any the factor is 1, where they are black 0.
    """
    if not valid.any():
        return 1.0
    bright = float(np.percentile((linear @ np.array(LUMA, np.float32))[valid], 90))
    return 0.8**GAMMA / bright if bright >= 1e-4 else 0.0


def toned(linear: NDArray[np.float32], scale: float) -> NDArray[np.float32]:
    """Scaled, gamma-coded with 1/2.2, clipped to [0, 1]."""
    return np.clip((scale * linear) ** (1 / GAMMA), 0, 1)


def tone_map(linear: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """HDR radiance float32 (H, W, 3), of which nan counts as black, as uint8.

    Args:
        linear: any values; negative ones count as 0.
        valid: of :func:`tone_scale`.
    """
    linear = np.where(np.isnan(linear), np.float32(0), np.clip(linear, 0, np.finfo(np.float32).max))
    return np.round(255 * toned(linear, tone_scale(linear, valid))).astype(np.uint8)
