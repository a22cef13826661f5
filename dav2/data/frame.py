"""``Frame``, the unit that flows from every data set, and the conventions it carries.

Depth is planar: the distance along the optical axis, not along the ray. ``+inf`` is sky (disparity 0, part of the
loss), ``nan`` is unknown (outside the loss), and nothing else marks anything. Disparity is 1/depth. Pixel centres lie
at integer coordinates plus one half, so the principal point of a symmetric 640 × 480 camera is (320, 240).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

KEY_PATTERN = re.compile(r"[a-z0-9_-]+(?:/[a-z0-9_-]+)+")


class Intrinsics(NamedTuple):
    """Pinhole camera in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


class FrameError(ValueError):
    """A frame that cannot be used; the message says which file and why. It is quarantined, never fatal."""


def make_key(*parts: str) -> str:
    """Join ``parts`` into a key of ``a-z 0-9 _ - /``; every other character becomes ``_``.

    A dot would cut a WebDataset key, upper case would collide on some file systems. Accents are dropped first, so that
    readable names stay readable. Uniqueness is checked at ingestion, where a collision is reported.
    """
    cleaned = []
    for part in "/".join(parts).split("/"):
        plain = unicodedata.normalize("NFKD", part).encode("ascii", "ignore").decode().lower()
        cleaned.append(re.sub(r"[^a-z0-9_-]", "_", plain) or "_")
    return "/".join(cleaned)


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with what is known of its depth.

    Attributes:
        key: ``source/scene/frame``.
        rgb: uint8 (H, W, 3), upright, sRGB.
        depth: float32 (H, W), planar, ``+inf`` sky, ``nan`` unknown; ``None`` for unlabelled images.
        metric: whether the unit of ``depth`` is metres; otherwise arbitrary per scene.
        intrinsics: camera in pixels of ``rgb``, or ``None`` where it is not known.
        jpeg: the source's own JPEG bytes where decoding them gives ``rgb``; else ``None``.
        extra: small JSON values that a benchmark needs (point pairs, masks' names); never read by training.
    """

    key: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    metric: bool = True
    intrinsics: Intrinsics | None = None
    jpeg: bytes | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise FrameError(f"key '{self.key}' must look like source/scene/frame, of a-z 0-9 _ - only")
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise FrameError(f"{self.key}: rgb must be uint8 (H, W, 3), not {self.rgb.dtype} {self.rgb.shape}")
        if self.depth is None:
            return
        if self.depth.dtype != np.float32 or self.depth.shape != self.rgb.shape[:2]:
            raise FrameError(
                f"{self.key}: depth must be float32 {self.rgb.shape[:2]}, not {self.depth.dtype} {self.depth.shape}"
            )
        if np.fmin.reduce(self.depth, axis=None) <= 0:
            raise FrameError(f"{self.key}: depth holds values ≤ 0; the reader must mark them unknown (nan)")
