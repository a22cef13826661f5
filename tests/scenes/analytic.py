"""Captures whose depth is a closed form: a ground plane, spheres and boxes, ray-cast in numpy.

Reader tests of any room use it to write a public layout without Mitsuba; the scenes room's tests use it to check
Mitsuba's depth.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Array, Camera, Capture, look_at


@dataclass(frozen=True)
class Shapes:
    """A ground plane z = ``ground`` (``None``: no ground), spheres (x, y, z, r), boxes (lower corner, upper corner)."""

    ground: float | None = 0.0
    spheres: tuple[tuple[float, float, float, float], ...] = ((0.3, 4.0, 0.8, 0.8), (-1.5, 7.0, 1.0, 1.0))
    boxes: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = field(
        default=(((1.2, 5.0, 0.0), (2.2, 6.0, 1.8)),)
    )


def capture(
    width: int = 64,
    height: int = 48,
    fov: float = 60.0,
    shapes: Shapes | None = None,
    pose: Array | None = None,
    tilt: Array | None = None,
) -> Capture:
    """A capture of ``shapes`` from 1.5 m above the ground, looking along +y; sky above the horizon."""
    pose = look_at(np.array([0.0, 0, 1.5]), np.array([0.0, 5, 1.0])) if pose is None else pose
    camera = Camera.with_fov(width, height, fov, pose, tilt)
    distance, index = first_hit(shapes or Shapes(), camera)
    depth = (distance * camera.rays()[..., 2]).astype(np.float32)
    return Capture(colour(index, distance), depth, index, camera)


def first_hit(shapes: Shapes, camera: Camera) -> tuple[Array, NDArray[np.int16]]:
    """(H, W) distance along the ray (inf: none) and int16 index of the shape hit (-1: none)."""
    directions = camera.rays() @ camera.to_world[:3, :3].T
    origin = camera.to_world[:3, 3]
    hits = [_sphere(origin, directions, np.array(s[:3]), s[3]) for s in shapes.spheres]
    hits += [_box(origin, directions, np.array(low), np.array(high)) for low, high in shapes.boxes]
    if shapes.ground is not None:
        with np.errstate(divide="ignore"):
            hits.append((shapes.ground - origin[2]) / directions[..., 2])
    stacked = np.stack([np.where(hit > 1e-6, hit, np.inf) for hit in hits])
    nearest = stacked.min(axis=0)
    return nearest, np.where(np.isfinite(nearest), stacked.argmin(axis=0), -1).astype(np.int16)


def _sphere(origin: Array, directions: Array, centre: Array, radius: float) -> Array:
    offset = origin - centre
    half_b = directions @ offset
    discriminant = half_b**2 - (offset @ offset - radius**2)
    with np.errstate(invalid="ignore"):
        return np.where(discriminant > 0, -half_b - np.sqrt(discriminant), np.inf)


def _box(origin: Array, directions: Array, low: Array, high: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (low - origin) / directions, (high - origin) / directions
    entry = np.minimum(first, second).max(axis=-1)
    leave = np.maximum(first, second).min(axis=-1)
    return np.where(entry < leave, entry, np.inf)


def colour(index: NDArray[np.int16], distance: Array) -> NDArray[np.uint8]:
    """A colour per shape, darker with distance, so that neighbours differ and JPEG keeps them apart."""
    palette = np.random.default_rng(3).integers(60, 255, (64, 3))
    shade = np.exp(-np.where(np.isfinite(distance), distance, 0) / 40)
    return (palette[index] * shade[..., None]).astype(np.uint8)
