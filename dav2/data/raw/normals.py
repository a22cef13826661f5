"""Surface normals from planar depth and a pinhole camera, where a data set has nothing better.

On a plane n · P = k, disparity is affine in the image: with P = d (x, y, −1), x = (u − cx) / fx, y = −(v − cy) / fy,

    1/d = (n_x x + n_y y − n_z) / k

so a plane fitted to disparity is exact on every plane, at any slant. ``plane`` fits one by least squares to the pixels
of a window that belong to the same surface; ``gradient`` takes it from the nearest neighbours alone, which follows
curved surfaces more closely and noise as well.

A neighbour at r pixels belongs to the same surface if the logarithms of both depths differ by no more than
:data:`STEEPEST` · r / f: as much as a surface seen under 84° does. Where too few neighbours do, or the fit leaves more
than :data:`ROUGHEST` of the disparity unexplained, the normal is unknown: that is the case at edges of depth.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Intrinsics

Method = Literal["plane", "gradient"]
Map = NDArray[np.float32]

STEEPEST = 10.0
"""Tangent of the steepest slant, 84°."""
ROUGHEST = 0.02
"""Largest root mean square of what a plane leaves, as a share of the disparity."""
RADIUS: dict[str, int] = {"plane": 2, "gradient": 1}
LEAST_SHARE = 0.5
"""Least share of the window that must lie on the surface."""
_ROUNDING = 1e-6


def normals_from_depth(depth: Map, camera: Intrinsics, method: Method = "plane") -> Map:
    """Unit normals float32 (H, W, 3), x right, y up, z to the viewer, facing the viewer; ``nan`` where unknown.

    Args:
        depth: float32 (H, W), planar, of any unit; ``inf`` (sky) and ``nan`` have no normal.
        camera: in pixels of ``depth``.
        method: ``plane`` (5 × 5 pixels) or ``gradient`` (3 × 3, without the corners).
    """
    sums, share = _gather(depth, camera, method)
    fitted, left = _solved(sums)
    sound = (share >= LEAST_SHARE) & np.isfinite(depth) & (left <= ROUGHEST**2)
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - camera.cx) / camera.fx
    y = -(np.arange(height, dtype=np.float32)[:, None] + 0.5 - camera.cy) / camera.fy
    across, up, middle = fitted[0] * camera.fx, fitted[1] * camera.fy, fitted[2] + 1
    # The plane's value at the middle pixel is n · ray > 0 with ray (x, y, −1): turned over, n faces the viewer.
    normal = np.stack([-across, -up, middle - across * x - up * y], axis=-1).astype(np.float32)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    length[~sound | (length[..., 0] == 0)] = np.nan
    unit: Map = normal / length
    return unit


class _Sums(NamedTuple):
    """Over the pixels of each window that count, float32 (H, W) each: their number, columns c to the right, rows r up,
    and relative disparity d beside that of the middle."""

    n: Map
    c: Map
    r: Map
    cc: Map
    cr: Map
    rr: Map
    d: Map
    cd: Map
    rd: Map
    dd: Map


def _gather(depth: Map, camera: Intrinsics, method: Method) -> tuple[_Sums, Map]:
    """The sums, and the share that counts of each window's pixels in the image."""
    radius, focal = RADIUS[method], min(camera.fx, camera.fy)
    height, width = depth.shape
    finite = np.where(np.isfinite(depth), depth, np.float32(np.nan))
    inverse = np.pad(1 / finite, radius, constant_values=np.nan)
    inside = np.pad(np.ones((height, width), np.float32), radius)
    sums = _Sums(*(np.zeros((height, width), np.float32) for _ in _Sums._fields))
    window = np.zeros((height, width), np.float32)
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1):
            if method == "gradient" and row and column:
                continue
            there = (slice(radius + row, radius + row + height), slice(radius + column, radius + column + width))
            window += inside[there]
            # Beside the middle's, so that nothing is lost where all are nearly the same.
            disparity = inverse[there] * finite - 1
            most = STEEPEST * math.hypot(row, column) / focal + _ROUNDING
            near = (disparity >= math.expm1(-most)) & (disparity <= math.expm1(most))
            disparity[~near] = 0
            terms = {"c": column, "r": -row, "cc": column**2, "cr": -column * row, "rr": row**2}
            sums.n[...] += near
            for name, factor in terms.items():
                if factor:
                    getattr(sums, name)[...] += np.float32(factor) * near
            sums.d[...] += disparity
            sums.cd[...] += column * disparity
            sums.rd[...] += -row * disparity
            sums.dd[...] += disparity**2
    return sums, sums.n / window


def _solved(sums: _Sums) -> tuple[tuple[Map, Map, Map], Map]:
    """Least squares of disparity to a · c + b · r + e by Cramer's rule: (a, b, e), and the mean square that is left.

    ``inf`` is left where the pixels lie on one line.
    """
    n, c, r, cc, cr, rr, d, cd, rd, dd = sums
    # Minors of the symmetric matrix ((cc, cr, c), (cr, rr, r), (c, r, n)); all are whole numbers.
    first, second, third = rr * n - r * r, r * c - cr * n, cr * r - rr * c
    fourth, fifth, sixth = cc * n - c * c, cr * c - cc * r, cc * rr - cr * cr
    determinant = cc * first + cr * second + c * third
    flat = determinant == 0
    scale = np.reciprocal(np.where(flat, 1, determinant)).astype(np.float32)
    a: Map = np.multiply(first * cd + second * rd + third * d, scale, dtype=np.float32)
    b: Map = np.multiply(second * cd + fourth * rd + fifth * d, scale, dtype=np.float32)
    e: Map = np.multiply(third * cd + fifth * rd + sixth * d, scale, dtype=np.float32)
    left: Map = (dd - a * cd - b * rd - e * d) / np.maximum(n, 1)
    left[flat] = np.inf
    return (a, b, e), left
