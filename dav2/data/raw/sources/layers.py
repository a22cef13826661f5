"""Normals, appearance and light as data sets store them → layers of a frame, or the reason why they cannot be any.

Two ways to deal with bad pixels: ``published`` refuses a frame that has any, as the filters of Marigold's training sets
do (the frame is quarantined and counted), ``mask`` marks them unknown (``nan``) and keeps the rest.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import FrameError, known_pixels
from dav2.data.raw.sources.tone import tone_scale, toned

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
Filter = Literal["published", "mask"]

FACING_AWAY = -1e-3
"""Normals whose cosine with the direction to the viewer lies below this are turned over (Marigold's preprocessing)."""
SHORTEST = 0.5
"""Stored vectors shorter than this mark pixels without a normal (the convention of the DSINE benchmarks)."""
CLIPPED_AT = 0.98
"""Quantile of shading at which both shading and residual are clipped for the test of recomposition."""
LEAST_PSNR = 40.0
"""dB between the tone-mapped image and albedo · shading + residual below which a frame is refused."""
_TOLERANCE = 1e-3
"""By how much half floats may leave [0, 1]."""


def pinhole_rays(fx: float, fy: float, cx: float, cy: float, height: int, width: int) -> NDArray[np.float64]:
    """Unit rays through the pixel centres, float64 (H, W, 3), in axes x right, y up, z to the viewer."""
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy)
    rays = np.stack([x, -y, -np.ones_like(x)], axis=-1)
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def clean_normals(raw: NDArray[np.floating], rays: NDArray[np.floating] | None, bad: Filter, name: str) -> Map:
    """Unit normals float32 (H, W, 3) that face the viewer; ``nan`` where none is known.

    Args:
        raw: (H, W, 3) in camera axes x right, y up, z to the viewer, of any length.
        rays: unit directions from the camera through each pixel, (H, W, 3), in the same axes; normals facing away from
            them are turned over. ``None`` leaves directions as they are.
        bad: what becomes of a frame with vectors that are too short or not finite.
        name: of the file, for the message.

    Raises:
        FrameError: not three values a pixel, no normal at all, or bad pixels under ``published``.
    """
    if raw.ndim != 3 or raw.shape[2] != 3:
        raise FrameError(f"{name}: normals must be (H, W, 3), not {raw.shape}")
    length = np.linalg.norm(raw.astype(np.float64), axis=-1)
    known = np.isfinite(length) & (length > SHORTEST)
    _judge(known, bad, name, "normals of length 0 or not finite")
    unit = raw / np.where(known, length, np.nan)[..., None]
    if rays is not None:
        away = np.einsum("hwc,hwc->hw", unit, -rays) < FACING_AWAY
        unit = np.where(away[..., None], -unit, unit)
    return unit.astype(np.float32)


def clean_share(raw: NDArray[np.floating], mask: Mask | None, bad: Filter, name: str, what: str) -> Map:
    """Albedo (H, W, 3), roughness or metallicity (H, W) in [0, 1]; ``nan`` outside of ``mask``.

    Raises:
        FrameError: values outside of [0, 1] or not finite inside the mask under ``published``, or none that is sound.
    """
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(raw) & (raw >= -_TOLERANCE) & (raw <= 1 + _TOLERANCE)
    return _cleaned(np.clip(raw, 0, 1), inside, mask, bad, name, f"{what} outside [0, 1] or not finite")


def clean_light(raw: NDArray[np.floating], mask: Mask | None, bad: Filter, name: str, what: str) -> Map:
    """Shading or residual (H, W, 3) ≥ 0; ``nan`` outside of ``mask``.

    Raises:
        FrameError: negative or not finite values inside the mask under ``published``, or none that is sound.
    """
    with np.errstate(invalid="ignore"):
        inside = np.isfinite(raw) & (raw >= 0)
    return _cleaned(raw, inside, mask, bad, name, f"{what} negative or not finite")


def recomposition_psnr(image: Map, albedo: Map, shading: Map, residual: Map) -> float:
    """PSNR in dB of albedo · shading + residual against the HDR image, both tone-mapped, over pixels that all know.

    Shading and residual are both clipped at the shading's 98 % quantile first, as the published filter does
    (``script/iid/dataset_preprocess`` of prs-eth/Marigold), though training clips both at the larger of their two.
    """
    known: Mask = known_pixels(image)
    for each in (albedo, shading, residual):
        known = known & known_pixels(each)
    if not known.any():
        return float("nan")
    most = float(np.quantile(shading[known], CLIPPED_AT))
    made = albedo * np.minimum(shading, most) + np.minimum(residual, most)
    shown, remade = (np.where(known[..., None], each, 0).clip(0).astype(np.float32) for each in (image, made))
    scale = tone_scale(shown, known)
    error = float(np.mean((toned(shown, scale) - toned(remade, scale))[known].astype(np.float64) ** 2))
    return float(-10 * math.log10(max(error, 1e-12)))


def _cleaned(raw: NDArray[np.floating], sound: Mask, mask: Mask | None, bad: Filter, name: str, why: str) -> Map:
    per_pixel: Mask = sound if sound.ndim == 2 else np.logical_and.reduce(sound, axis=-1)
    asked = np.ones(per_pixel.shape, np.bool_) if mask is None else mask
    if asked.shape != per_pixel.shape:
        raise FrameError(f"{name}: {raw.shape}, but its mask is {asked.shape}")
    if not asked.any():
        raise FrameError(f"{name}: its mask is empty")
    _judge(per_pixel | ~asked, bad, name, why)
    known = per_pixel & asked
    if not known.any():
        raise FrameError(f"{name}: {why} at every pixel")
    return np.where(known if raw.ndim == 2 else known[..., None], raw, np.nan).astype(np.float32)


def _judge(sound: Mask, bad: Filter, name: str, why: str) -> None:
    share = 1 - np.count_nonzero(sound) / sound.size
    if share == 1 or (share > 0 and bad == "published"):
        raise FrameError(f"{name}: {why} at {share:.2%} of the pixels; the option 'bad_layers: mask' keeps the rest")
