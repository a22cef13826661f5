"""Triangle meshes made in numpy: boxes, lathed profiles, terrain, rocks, leaves, tubes. z is up; units are metres."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Array
from dav2.scenes.textures import Random, pink


class Mesh(NamedTuple):
    """Vertices (V, 3), triangles (F, 3) of vertex numbers, texture coordinates (V, 2)."""

    vertices: Array
    faces: NDArray[np.int64]
    uv: Array


def grid(points: Array, uv: Array) -> Mesh:
    """The surface through a lattice of points (R, C, 3) with texture coordinates (R, C, 2)."""
    rows, columns = points.shape[:2]
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None, :]).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    return Mesh(points.reshape(-1, 3), np.concatenate([lower, upper]), uv.reshape(-1, 2))


def box(size: tuple[float, float, float], metres_per_tile: float = 1.0) -> Mesh:
    """A box standing on z = 0, centred in x and y; the texture repeats every ``metres_per_tile``."""
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    sides = []
    for origin, across, up in (
        ((-x, -y, 0), (2 * x, 0, 0), (0, 0, z)),
        ((x, y, 0), (-2 * x, 0, 0), (0, 0, z)),
        ((-x, y, 0), (0, -2 * y, 0), (0, 0, z)),
        ((x, -y, 0), (0, 2 * y, 0), (0, 0, z)),
        ((-x, -y, z), (2 * x, 0, 0), (0, 2 * y, 0)),
        ((-x, y, 0), (2 * x, 0, 0), (0, -2 * y, 0)),
    ):
        corners = np.array([[(0, 0), (1, 0)], [(0, 1), (1, 1)]], dtype=float)
        points = np.asarray(origin) + corners[..., :1] * across + corners[..., 1:] * up
        lengths = np.array([np.linalg.norm(across), np.linalg.norm(up)])
        sides.append(grid(points, corners * lengths / metres_per_tile))
    return join(sides)


def lathe(profile: Array, segments: int = 32) -> Mesh:
    """The surface of revolution about z of ``profile`` (K, 2): radius, height, from the bottom up."""
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    radius, height = profile[:, 0, None], profile[:, 1, None]
    points = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(height, (len(profile), segments + 1))], axis=-1
    )
    v, u = np.meshgrid(np.linspace(0, 1, len(profile)), np.linspace(0, 2, segments + 1), indexing="ij")
    return grid(points, np.stack([u, v], axis=-1))


def vase(rng: Random, radius: float, height: float) -> Mesh:
    """A closed, smooth random profile turned about z: vases, bottles, bowls, chessmen."""
    knots = rng.uniform(0.35, 1.0, 6)
    t = np.linspace(0, 1, 18)
    smooth = np.interp(t, np.linspace(0, 1, 6), knots)
    smooth = np.convolve(np.pad(smooth, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    body = np.stack([radius * smooth / smooth.max(), height * t], axis=1)
    return lathe(np.concatenate([[[1e-4, 0]], body, [[1e-4, height]]]))


def cone(radius: float, height: float, top: float = 0.0, base: float = 0.0) -> Mesh:
    """A closed cone or frustum with its foot at z = ``base``."""
    return lathe(np.array([[1e-4, base], [radius, base], [max(top, 1e-4), base + height], [1e-4, base + height]]), 20)


def rock(rng: Random, radius: float, roughness: float = 0.35) -> Mesh:
    """A sphere whose radius varies by smooth noise; it lies on z = 0."""
    polar, around = np.linspace(0, np.pi, 17), np.linspace(0, 2 * np.pi, 33)
    waves = sum(
        np.sin(a * around[None] + p) * np.sin(b * polar[:, None]) / (a + 1)
        for a, b, p in zip(range(1, 6), rng.integers(1, 6, 5), rng.uniform(0, 6.3, 5), strict=True)
    )
    r = radius * (1 + roughness * np.asarray(waves))
    stretch = rng.uniform(0.7, 1.3, 3)
    points = np.stack(
        [
            r * np.sin(polar[:, None]) * np.cos(around) * stretch[0],
            r * np.sin(polar[:, None]) * np.sin(around) * stretch[1],
            r * np.cos(polar[:, None]) * stretch[2],
        ],
        axis=-1,
    )
    points[..., 2] -= points[..., 2].min() * 0.8
    v, u = np.meshgrid(np.linspace(0, 2, 17), np.linspace(0, 3, 33), indexing="ij")
    return grid(points, np.stack([u, v], axis=-1))


def terrain(rng: Random, extent: float, height: float, cells: int = 64, metres_per_tile: float = 4.0) -> Mesh:
    """A square of hills of side 2 × ``extent``, its height 0 … ``height``."""
    z = pink(rng, 2.2, cells + 1) * height
    axis = np.linspace(-extent, extent, cells + 1)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    return grid(points, points[..., :2] / metres_per_tile)


def leaves(rng: Random, centre: Array, radius: float, count: int, size: float) -> Mesh:
    """``count`` small triangles scattered in a ball: foliage."""
    direction = rng.standard_normal((count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle = centre + direction * radius * rng.random((count, 1)) ** 0.45
    corners = middle[:, None] + size * rng.standard_normal((count, 3, 3))
    return Mesh(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3), rng.random((3 * count, 2)))


def tube(path: Array, radius: float | Array, segments: int = 8) -> Mesh:
    """A tube around ``path`` (K, 3); ``radius`` may vary along it."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    helper = np.where(np.abs(tangent[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    side = np.cross(tangent, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, segments + 1)[None, :, None]
    offset = np.cos(angle) * side[:, None] + np.sin(angle) * other[:, None]
    points = path[:, None] + offset * np.broadcast_to(radius, (len(path),))[:, None, None]
    v, u = np.meshgrid(np.linspace(0, 4, len(path)), np.linspace(0, 1, segments + 1), indexing="ij")
    return grid(points, np.stack([u, v], axis=-1))


def join(parts: list[Mesh]) -> Mesh:
    """All ``parts`` as one mesh."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate(faces),
        np.concatenate([part.uv for part in parts]),
    )


def place(mesh: Mesh, at: tuple[float, float, float], turn: float = 0.0, scale: float = 1.0) -> Mesh:
    """``mesh`` scaled, turned about z by ``turn`` radians and moved to ``at``."""
    cosine, sine = np.cos(turn), np.sin(turn)
    about_z = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return mesh._replace(vertices=mesh.vertices @ about_z.T * scale + np.asarray(at))
