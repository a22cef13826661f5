"""Things that stand out of doors, and in the sea.

Each function returns the parts of one thing standing on z = 0 around the origin.

``things.put`` moves them into place. Sizes are metres.
"""

from __future__ import annotations

import numpy as np

from dav2.scenes import materials, meshes, textures, things
from dav2.scenes.meshes import Mesh
from dav2.scenes.scene import Material, Sphere
from dav2.scenes.textures import Random
from dav2.scenes.things import Parts


def tree(rng: Random, height: float) -> Parts:
    """A trunk with branches and a crown of leaves, a conifer, or a bare tree."""
    form = rng.random()
    trunk_height = height * (0.95 if form > 0.75 else rng.uniform(0.35, 0.6))
    t = np.linspace(0, 1, 6)
    bend = rng.normal(0, 0.05, 2) * height
    trunk = np.stack([bend[0] * t**2, bend[1] * t**2, trunk_height * t], axis=1)
    wood = [meshes.tube(trunk, height * 0.035 * (1.15 - t))]
    if 0.55 < form <= 0.75:
        layers = [
            meshes.cone(height * 0.28 * (1.1 - s), height * 0.34, 0, height * (0.2 + 0.5 * s)) for s in (0, 0.45, 0.9)
        ]
        return [(meshes.join(wood), materials.bark(rng)), (meshes.join(layers), materials.leaf(rng))]
    for _ in range(rng.integers(5, 14)):
        start = trunk[rng.integers(2, 6)]
        reach = np.array([rng.normal(), rng.normal(), rng.uniform(0.3, 1.2)])
        end = start + reach / np.linalg.norm(reach) * height * rng.uniform(0.12, 0.32)
        wood.append(meshes.tube(np.linspace(start, end, 4), height * 0.01 * np.array([1.2, 0.9, 0.6, 0.3]), 5))
    parts: Parts = [(meshes.join(wood), materials.bark(rng))]
    if form <= 0.55:
        for _ in range(rng.integers(1, 4)):
            centre = trunk[-1] + rng.normal(0, 0.1, 3) * height
            crown = meshes.leaves(
                rng, centre, height * rng.uniform(0.2, 0.32), int(rng.integers(500, 1300)), height * 0.016
            )
            parts.append((crown, materials.leaf(rng)))
    return parts


def bush(rng: Random, size: float) -> Parts:
    """A bush of about ``size`` metres."""
    crown = meshes.leaves(rng, np.array([0, 0, size * 0.6]), size * 0.7, int(rng.integers(300, 800)), size * 0.045)
    return [(crown, materials.leaf(rng))]


def stone(rng: Random, size: float) -> Parts:
    """A rounded stone of about ``size`` metres."""
    tone = textures.colour(rng, (0.05, 0.15), (0.0, 0.25), (0.2, 0.65))
    dark = (tone[0] * 0.5, tone[1] * 0.5, tone[2] * 0.5)
    return [(meshes.rock(rng, size), Material(textures.blend(textures.pink(rng, 0.9), dark, tone)))]


def house(rng: Random, size: tuple[float, float, float]) -> Parts:
    """Walls with windows under a pitched or flat roof."""
    walls = meshes.box(size, rng.uniform(5, 8))
    parts: Parts = [(walls, Material(textures.facade(rng)))]
    x, y, z = size
    rise = rng.uniform(0.3, 0.6) * min(x, y) if z < 12 and rng.random() < 0.75 else 0.0
    if rise:
        eaves, ridge = 0.3, np.array([[-x / 2, 0, z + rise], [x / 2, 0, z + rise]])
        low = [
            np.array([[-x / 2, s * (y / 2 + eaves), z - 0.1], [x / 2, s * (y / 2 + eaves), z - 0.1]]) for s in (-1, 1)
        ]
        uv = np.array([[[0, 0], [x / 2, 0]], [[0, 2], [x / 2, 2]]], dtype=float)
        roof = [meshes.grid(np.stack([edge, ridge]), uv) for edge in low]
        ends = [
            Mesh(
                np.array([[s * x / 2, -y / 2, z], [s * x / 2, y / 2, z], [s * x / 2, 0, z + rise]]),
                np.array([[0, 1, 2]]),
                np.eye(3)[:, :2],
            )
            for s in (-1, 1)
        ]
        tiles = textures.blend(textures.pink(rng, 0.6), textures.colour(rng, (0, 0.1)), textures.colour(rng, (0, 0.1)))
        parts += [(meshes.join(roof), Material(tiles)), (meshes.join(ends), materials.plaster(rng))]
    return parts


def car(rng: Random) -> Parts:
    """About 4.2 × 1.7 × 1.4 m, facing +x."""
    length, width = rng.uniform(3.6, 5.0), rng.uniform(1.6, 1.9)
    tall = rng.uniform(0.55, 1.1)
    body = meshes.place(meshes.box((length, width, 0.55)), (0, 0, 0.3))
    low, high = length * rng.uniform(0.26, 0.42), length * rng.uniform(0.18, 0.3)
    side = np.array([[-low, 0.85], [low, 0.85], [high, 0.85 + tall], [-high, 0.85 + tall]])
    ring = np.stack([np.stack([side[:, 0], np.full(4, y), side[:, 1]], axis=1) for y in (-width * 0.45, width * 0.45)])
    closed = np.concatenate([ring, ring[:, :1]], axis=1)
    cabin = meshes.grid(closed, np.zeros((2, 5, 2)))
    flanks = Mesh(ring.reshape(-1, 3), np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]), np.zeros((8, 2)))
    turn = np.linspace(0, 2 * np.pi, 13)
    wheels = []
    for x in (-length * 0.32, length * 0.32):
        for y in (-width / 2, width / 2):
            rim = np.stack([x + 0.24 * np.cos(turn), np.full(13, y), 0.32 + 0.24 * np.sin(turn)], axis=1)
            wheels.append(meshes.tube(rim, 0.09, 6))
    glass = Material(textures.colour(rng, (0.5, 0.65), (0, 0.3), (0.03, 0.12)), "gloss")
    return [
        (body, materials.paint(rng)),
        (meshes.join([cabin, flanks]), glass),
        (meshes.join(wheels), Material((0.03, 0.03, 0.03))),
    ]


def person(rng: Random) -> Parts:
    """A simple figure: legs, torso, arms, head."""
    tall = rng.uniform(1.5, 1.9)
    step = rng.uniform(0, 0.25)
    hip, neck = np.array([0, 0, tall * 0.5]), np.array([0, 0, tall * 0.82])
    legs = [
        meshes.tube(np.linspace([s * step, s * 0.09, 0.02], hip + np.array([0, s * 0.08, 0]), 3), 0.075)
        for s in (-1, 1)
    ]
    arms = [
        meshes.tube(
            np.linspace(neck + np.array([0, s * 0.2, -0.05]), hip + np.array([-s * step, s * 0.28, -0.05]), 3), 0.05
        )
        for s in (-1, 1)
    ]
    torso = meshes.place(meshes.cone(0.17, tall * 0.34, 0.22), (0, 0, tall * 0.48))
    skin = Material(textures.colour(rng, (0.04, 0.09), (0.3, 0.6), (0.25, 0.8)))
    return [
        (meshes.join(legs), materials.anything(rng, 0.9)),
        (meshes.join([torso, *arms]), materials.anything(rng, 0.6)),
        (Sphere((0, 0, tall * 0.92), tall * 0.075), skin),
    ]


def lamp_post(rng: Random) -> Parts:
    """A thin pole with an arm, or a sign."""
    height = rng.uniform(2.5, 8)
    pole = [meshes.tube(np.array([[0, 0, 0], [0, 0, height / 2], [0, 0, height]]), rng.uniform(0.04, 0.1))]
    if height > 4:
        pole.append(meshes.tube(np.array([[0, 0, height], [0.6, 0, height + 0.2], [1.4, 0, height + 0.2]]), 0.05))
        return [(meshes.join(pole), materials.metal(rng))]
    sign = meshes.place(meshes.box((0.7, 0.03, 0.6), 0.7), (0, -0.08, height - 0.6))
    return [(meshes.join(pole), materials.metal(rng)), (sign, Material(textures.picture(rng)))]


def fence(rng: Random, length: float) -> Parts:
    """Thin posts and two rails along x."""
    height, gap = rng.uniform(0.8, 1.6), rng.uniform(0.15, 0.6)
    count = int(length / gap)
    posts = [
        meshes.place(meshes.box((0.05, 0.04, height)), (x, 0, 0)) for x in np.linspace(-length / 2, length / 2, count)
    ]
    rails = [meshes.place(meshes.box((length, 0.03, 0.06)), (0, 0.03, z)) for z in (height * 0.3, height * 0.8)]
    return [(meshes.join([*posts, *rails]), materials.anything(rng, 0.8))]


def wires(rng: Random, length: float, height: float) -> Parts:
    """Two masts and sagging wires between them, along x."""
    t = np.linspace(-1, 1, 16)
    lines = [
        meshes.tube(np.stack([t * length / 2, 0 * t + y, height - 0.8 * (1 - t**2)], axis=1), 0.025, 4)
        for y in (-0.4, 0, 0.4)
    ]
    masts = [
        meshes.tube(np.array([[x, 0, 0], [x, 0, height / 2], [x, 0, height]]), 0.12) for x in (-length / 2, length / 2)
    ]
    return [(meshes.join([*lines, *masts]), materials.bark(rng))]


def coral(rng: Random, size: float) -> Parts:
    """Branches of coral of about ``size`` metres."""
    branches = []
    for _ in range(rng.integers(8, 20)):
        start = np.zeros(3)
        way = np.array([rng.normal(0, 0.6), rng.normal(0, 0.6), 1.0])
        points = [start]
        for _ in range(4):
            way = way + rng.normal(0, 0.35, 3)
            points.append(points[-1] + way / np.linalg.norm(way) * size / 4)
        branches.append(meshes.tube(np.array(points), size * 0.05 * np.linspace(1.2, 0.5, 5), 6))
    return [(meshes.join(branches), Material(textures.colour(rng, (0.85, 1.2), (0.3, 0.8), (0.4, 0.85))))]


def weed(rng: Random, height: float) -> Parts:
    """Blades of about ``height`` metres."""
    blades = []
    for _ in range(rng.integers(6, 20)):
        t = np.linspace(0, 1, 8)
        phase, foot = rng.uniform(0, 6, 2), rng.normal(0, 0.12 * height, 2)
        x = foot[0] + 0.12 * height * t * np.sin(4 * t + phase[0])
        y = foot[1] + 0.12 * height * t * np.sin(4 * t + phase[1])
        blades.append(
            meshes.tube(np.stack([x, y, height * t * rng.uniform(0.6, 1)], axis=1), 0.02 * height * (1.1 - t), 4)
        )
    return [(meshes.join(blades), materials.leaf(rng))]


def fish(rng: Random, length: float) -> Parts:
    """Swims along +x at z = 0."""
    body = meshes.lathe(np.array([[1e-4, -0.5], [0.12, -0.3], [0.2, 0.05], [0.14, 0.35], [1e-4, 0.5]]) * length, 16)
    turned = body._replace(vertices=body.vertices[:, [2, 0, 1]] * [1, 0.5, 1])
    tail = Mesh(
        np.array([[-0.42, 0, 0], [-0.68, 0, 0.2], [-0.68, 0, -0.2]]) * length, np.array([[0, 1, 2]]), np.eye(3)[:, :2]
    )
    paint = materials.anything(rng, 0.4)
    return [(meshes.join([turned, tail]), paint)]


def figure(rng: Random, size: float) -> Parts:
    """A toy about ``size`` tall: one of the small things that stand on tables."""
    form = rng.integers(8)
    if form == 0:
        return things.ball(rng, size / 2)
    if form == 1:
        return things.block(rng, (size * rng.uniform(0.3, 1), size * rng.uniform(0.3, 1), size * rng.uniform(0.3, 1)))
    if form == 2:
        return things.cup(rng, size * rng.uniform(0.25, 0.45), size * rng.uniform(0.5, 1))
    if form == 3:
        return things.houseplant(rng, size * 1.3)
    if form == 4:
        return stone(rng, size / 2)
    if form == 5:
        return [
            (
                meshes.cone(size * rng.uniform(0.2, 0.5), size, size * rng.choice([0, 0.15, 0.4])),
                materials.anything(rng),
            )
        ]
    if form == 6:
        turn = np.linspace(0, 2 * np.pi, 25)
        ring = np.stack([size * 0.35 * np.cos(turn), 0 * turn, size * 0.42 + size * 0.35 * np.sin(turn)], axis=1)
        return [(meshes.tube(ring, size * 0.08), materials.anything(rng))]
    return things.vessel(rng, size * rng.uniform(0.2, 0.45), size)
