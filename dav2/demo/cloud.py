"""Depth in metres as points that a person can turn, in a frame of a page that asks nothing of anybody."""

from __future__ import annotations

import base64
import html
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.predict.points import in_space

POINTS = 30_000
"""About as many points has a cloud: what a telephone turns smoothly."""
FIELD_OF_VIEW = 60.0
"""Degrees across the longer side, where the photograph does not say with which lens it was taken."""
CODES = 32_767


def focal_for(shape: tuple[int, ...]) -> float:
    """Focal length in pixels of a photograph (H, W, …) that is ``FIELD_OF_VIEW`` wide."""
    return max(shape[:2]) / 2 / math.tan(math.radians(FIELD_OF_VIEW / 2))


def stride(shape: tuple[int, ...]) -> int:
    """Every how many-th pixel of an image (H, W, …) becomes a point."""
    return math.ceil(math.sqrt(shape[0] * shape[1] / POINTS))


def points(
    rgb: NDArray[np.uint8], metres: NDArray[np.float32], focal: float
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Every n-th pixel in space.

    Args:
        rgb: uint8 (H, W, 3).
        metres: planar depth (H, W).
        focal: in pixels.

    Returns:
        Positions in metres (N, 3), x right, y down, z forward from the camera, and colours (N, 3).
    """
    every = stride(metres.shape)
    return in_space(metres, focal, every), rgb[::every, ::every].reshape(-1, 3)


def frame(rgb: NDArray[np.uint8], metres: NDArray[np.float32], focal: float, name: str) -> str:
    """HTML of a frame with the cloud, which needs no network and may not reach the page around it."""
    positions, colours = points(rgb, metres, focal)
    reach = float(np.abs(positions).max()) or 1.0
    codes = np.round(positions / reach * CODES).astype("<i2")
    # It turns about what most of the picture shows, not about a far wall; points are as large as they lie apart.
    data = {
        "xyz": base64.b64encode(codes.tobytes()).decode(),
        "rgb": base64.b64encode(colours.tobytes()).decode(),
        "unit": reach / CODES,
        "wide": rgb.shape[1] / focal,
        "high": rgb.shape[0] / focal,
        "spacing": stride(metres.shape) / focal,
        "middle": float(np.median(positions[:, 2])),
    }
    page = _template().replace("__CLOUD__", json.dumps(data))
    return (
        f'<iframe class="cloud" title="Points of {html.escape(name)}" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


@cache
def _template() -> str:
    return Path(__file__).with_name("cloud.html").read_text(encoding="utf-8")
