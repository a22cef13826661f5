"""Point clouds: where the pixels of a metric map lie in space, and which way their surfaces face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Intrinsics
from dav2.data.raw.normals import RADIUS, normals_from_depth

BAND = 2**20
"""Pixels whose normals are computed at a time; it takes some 80 bytes for each."""


def in_space(metres: NDArray[np.float32], focal: float, every: int = 1) -> NDArray[np.float32]:
    """Where the pixels of planar depth (H, W) lie, row by row: float32 (N, 3) in metres.

    x points right, y down, z forward, the camera is the origin and looks through the middle of the picture.

    Args:
        focal: in pixels.
        every: only each so many-th row and column.
    """
    height, width = metres.shape
    z = metres[::every, ::every]
    x = (np.arange(0, width, every, dtype=np.float32) + 0.5 - width / 2) * z / focal
    y = (np.arange(0, height, every, dtype=np.float32)[:, None] + 0.5 - height / 2) * z / focal
    return np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(np.float32, copy=False)


def normals_in_space(metres: NDArray[np.float32], focal: float) -> NDArray[np.float32]:
    """Which way the surface at every pixel of planar depth (H, W) faces, row by row: float32 (N, 3).

    Unit vectors towards the camera in the axes of :func:`in_space`, from planes fitted to 5 × 5 pixels of one surface
    (:mod:`dav2.data.raw.normals`); zeros where no such plane is found, as at edges.

    Args:
        focal: in pixels.
    """
    height, width = metres.shape
    margin, rows = RADIUS["plane"], max(1, BAND // width)
    found = np.empty((height, width, 3), np.float32)
    for first in range(0, height, rows):
        last, top = min(first + rows, height), max(0, first - margin)
        band = metres[top : last + margin]
        camera = Intrinsics(focal, focal, width / 2, height / 2 - top)
        found[first:last] = normals_from_depth(band, camera)[first - top : last - top]
    found[..., 1:] *= -1  # from y up and z to the viewer
    return np.nan_to_num(found, copy=False).reshape(-1, 3)


def encode(
    metres: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    focal: float,
    normals: NDArray[np.float32] | None = None,
) -> bytes:
    """Binary PLY in metres with normals and colours; x right, y down, z forward, the camera at the origin.

    Args:
        metres: planar depth, float32 (H, W).
        rgb: uint8 (H, W, 3).
        focal: in pixels.
        normals: float32 (3, H, W) in camera axes (x right, y up, z to the viewer); ``None`` computes them from depth.
    """
    if normals is None:
        facing = normals_in_space(metres, focal)
    else:
        facing = normals.reshape(3, -1).T * np.array([1, -1, -1], np.float32)
    fields = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    fields += [(name, "u1") for name in ("red", "green", "blue")]
    points = np.empty(metres.size, fields)
    columns = (*in_space(metres, focal).T, *facing.T, *rgb.reshape(-1, 3).T)
    for (name, _), values in zip(fields, columns, strict=True):
        points[name] = values
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    return ("\n".join([*lines, "end_header"]) + "\n").encode() + points.tobytes()
