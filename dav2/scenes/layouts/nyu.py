"""NYU Depth V2 in the export of BTS: ``official_splits/test/<scene type>/{rgb,sync_depth}_NNNNN``.

Depth is raw sensor depth in millimetres, 0 where the sensor saw nothing. Pictures are 640 × 480 with a white-balanced
border of 7 px set to black: only rows 7:474 and columns 7:632 were exported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dav2.scenes.capture import Capture
from dav2.scenes.layouts import files

VISIBLE = (slice(7, 474), slice(7, 632))
SENSOR_RANGE = (0.3, 9.99)


def write_frame(root: Path, scene_type: str, number: int, capture: Capture) -> None:
    """Write one frame; depths outside the sensor's range become 0.

    Raises:
        ValueError: the picture is not 640 × 480, on which the evaluation crops rest.
    """
    if capture.rgb.shape != (480, 640, 3):
        raise ValueError(f"NYU pictures are 640 × 480, not {capture.rgb.shape[1]} × {capture.rgb.shape[0]}")
    folder = root / "official_splits" / "test" / scene_type
    rgb = np.zeros_like(capture.rgb)
    rgb[VISIBLE] = capture.rgb[VISIBLE]
    seen = (capture.depth >= SENSOR_RANGE[0]) & (capture.depth <= SENSOR_RANGE[1])
    millimetres = np.where(seen, np.rint(np.where(seen, capture.depth, 0) * 1000), 0).astype(np.uint16)
    files.write_jpeg(folder / f"rgb_{number:05d}.jpg", rgb, quality=80)
    files.write_png(folder / f"sync_depth_{number:05d}.png", millimetres)
