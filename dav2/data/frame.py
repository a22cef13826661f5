"""``Frame``, the unit that flows from every data set, and the conventions it carries.

Depth is planar: the distance along the optical axis, not along the ray. ``+inf`` is sky (disparity 0, part of the
loss), ``nan`` is unknown (outside the loss), and nothing else marks anything. Disparity is 1/depth. Pixel centres lie
at integer coordinates plus one half, so the principal point of a symmetric 640 × 480 camera is (320, 240).

Beside depth a frame may hold layers: normals, and what its colours are made of, with colour = albedo · shading +
residual in linear light. Every layer marks unknown pixels with ``nan`` and holds no infinity.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from dav2.maps import LAYERS, Quantity

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


UNIT_TOLERANCE = 1e-3
"""By how much the length of a normal may differ from 1."""


class Layers(TypedDict, total=False):
    """Layers that a frame may hold, as :class:`Frame` describes them."""

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    shading: NDArray[np.float32]
    residual: NDArray[np.float32]
    roughness: NDArray[np.float32]
    metallicity: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """One image with what is known of its depth, its normals, and its appearance and light.

    Attributes:
        key: ``source/scene/frame``.
        rgb: uint8 (H, W, 3), upright, sRGB.
        depth: float32 (H, W), planar, ``+inf`` sky, ``nan`` unknown; ``None`` for unlabelled images.
        metric: whether the unit of ``depth`` is metres; otherwise arbitrary per scene.
        intrinsics: camera in pixels of ``rgb``, or ``None`` where it is not known.
        jpeg: the source's own JPEG bytes where decoding them gives ``rgb``; else ``None``.
        extra: small JSON values that a benchmark needs (point pairs, masks' names); never read by training.
        normals: float32 (H, W, 3), unit vectors in camera axes: x right, y up, z to the viewer.
        albedo: float32 (H, W, 3), diffuse reflectance in [0, 1], linear.
        shading: float32 (H, W, 3), diffuse illumination ≥ 0, linear, of any range, in the unit of ``residual``.
        residual: float32 (H, W, 3), light that no diffuse reflection explains, ≥ 0, linear.
        roughness, metallicity: float32 (H, W) in [0, 1], linear.

    Of the layers from ``normals`` on, ``None`` is "not there" and ``nan`` "unknown at this pixel".
    """

    key: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None
    metric: bool = True
    intrinsics: Intrinsics | None = None
    jpeg: bytes | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    normals: NDArray[np.float32] | None = None
    albedo: NDArray[np.float32] | None = None
    shading: NDArray[np.float32] | None = None
    residual: NDArray[np.float32] | None = None
    roughness: NDArray[np.float32] | None = None
    metallicity: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not KEY_PATTERN.fullmatch(self.key):
            raise FrameError(f"key '{self.key}' must look like source/scene/frame, of a-z 0-9 _ - only")
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise FrameError(f"{self.key}: rgb must be uint8 (H, W, 3), not {self.rgb.dtype} {self.rgb.shape}")
        for quantity, values in self.layers.items():
            _check_layer(self.key, quantity, values, self.rgb.shape[:2])
        if self.depth is None:
            return
        if self.depth.dtype != np.float32 or self.depth.shape != self.rgb.shape[:2]:
            raise FrameError(
                f"{self.key}: depth must be float32 {self.rgb.shape[:2]}, not {self.depth.dtype} {self.depth.shape}"
            )
        if np.fmin.reduce(self.depth, axis=None) <= 0:
            raise FrameError(f"{self.key}: depth holds values ≤ 0; the reader must mark them unknown (nan)")

    @property
    def layers(self) -> dict[Quantity, NDArray[np.float32]]:
        """The layers that are there, in the order of :data:`dav2.maps.LAYERS`."""
        every = {quantity: getattr(self, quantity.value) for quantity in LAYERS}
        return {quantity: values for quantity, values in every.items() if values is not None}


def known_pixels(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a layer, (H, W) or (H, W, 3), is known: bool (H, W)."""
    known: NDArray[np.bool_] = np.isfinite(values)
    return known if known.ndim == 2 else np.logical_and.reduce(known, axis=-1)


def _check_layer(key: str, quantity: Quantity, values: NDArray[np.float32], size: tuple[int, int]) -> None:
    """FrameError where a layer is not what :class:`Frame` says of it."""
    shape = size if quantity.channels == 1 else (*size, quantity.channels)
    if values.dtype != np.float32 or values.shape != shape:
        raise FrameError(f"{key}: {quantity} must be float32 {shape}, not {values.dtype} {values.shape}")
    known = values[known_pixels(values)]
    if not known.size:
        raise FrameError(f"{key}: {quantity} is known at no pixel")
    if np.isinf(values).any():
        raise FrameError(f"{key}: {quantity} holds infinities; the reader must mark them unknown (nan)")
    if quantity is Quantity.NORMALS:
        off = np.abs(np.linalg.norm(known, axis=-1) - 1).max()
        if off > UNIT_TOLERANCE:
            raise FrameError(f"{key}: normals differ from length 1 by {off:.3g}; the reader must normalise them")
        return
    light = quantity in (Quantity.SHADING, Quantity.RESIDUAL)
    least, greatest = known.min(), known.max()
    if least < 0 or (greatest > 1 and not light):
        raise FrameError(
            f"{key}: {quantity} spans {least:.3g} … {greatest:.3g}, where {'≥ 0' if light else '0 … 1'} is allowed; "
            "the reader must mark the rest unknown (nan)"
        )
