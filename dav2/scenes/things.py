"""Things that stand in scenes. Each function returns the parts of one thing standing on z = 0 around the origin.

``put`` moves them into place. Sizes are metres.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dav2.scenes import materials, meshes, textures
from dav2.scenes.meshes import Mesh
from dav2.scenes.scene import Material, Scene, Sphere
from dav2.scenes.textures import Random

Part = tuple[Mesh | Sphere, Material]
Parts = list[Part]


def put(scene: Scene, parts: Parts, at: tuple[float, float, float], turn: float = 0.0, scale: float = 1.0) -> int:
    """Add ``parts`` to ``scene`` as one thing, turned about z, scaled and moved to ``at``; returns its number."""
    moved: Parts = []
    cosine, sine = np.cos(turn), np.sin(turn)
    for geometry, material in parts:
        if isinstance(geometry, Sphere):
            x, y, z = geometry.centre
            centre = (
                at[0] + scale * (cosine * x - sine * y),
                at[1] + scale * (sine * x + cosine * y),
                at[2] + scale * z,
            )
            moved.append((Sphere(centre, geometry.radius * scale), material))
        else:
            moved.append((meshes.place(geometry, at, turn, scale), material))
    return scene.thing(*moved)


def _leg(x: float, y: float, height: float, thick: float) -> Mesh:
    return meshes.place(meshes.box((thick, thick, height)), (x, y, 0))


def _legs(width: float, depth: float, height: float, thick: float) -> Mesh:
    x, y = width / 2 - thick, depth / 2 - thick
    return meshes.join([_leg(i * x, j * y, height, thick) for i in (-1, 1) for j in (-1, 1)])


def table(rng: Random, width: float, depth: float, height: float) -> Parts:
    """A top at exactly ``height`` on four legs, or on a foot when round."""
    material = materials.wood(rng) if rng.random() < 0.6 else materials.anything(rng)
    thick = rng.uniform(0.02, 0.06)
    if rng.random() < 0.25:
        radius = min(width, depth) / 2
        top = meshes.place(meshes.cone(radius, thick, radius), (0, 0, height - thick))
        return [(top, material), (meshes.cone(radius * 0.5, height - thick, 0.03), materials.metal(rng))]
    top = meshes.place(meshes.box((width, depth, thick)), (0, 0, height - thick))
    return [
        (top, material),
        (_legs(width, depth, height - thick, rng.uniform(0.03, 0.08)), materials.anything(rng, 0.9)),
    ]


def chair(rng: Random) -> Parts:
    """A chair with four legs."""
    seat, material = rng.uniform(0.4, 0.5), materials.anything(rng)
    back = meshes.place(meshes.box((0.45, 0.04, rng.uniform(0.35, 0.6))), (0, 0.2, seat + 0.03))
    if rng.random() < 0.4:
        slats = [meshes.place(meshes.box((0.04, 0.03, 0.5)), (x, 0.2, seat)) for x in np.linspace(-0.2, 0.2, 5)]
        back = meshes.join([*slats, meshes.place(meshes.box((0.45, 0.04, 0.06)), (0, 0.2, seat + 0.48))])
    return [
        (meshes.place(meshes.box((0.45, 0.45, 0.04)), (0, 0, seat)), material),
        (back, material),
        (_legs(0.45, 0.45, seat, 0.035), materials.anything(rng, 0.9)),
    ]


def sofa(rng: Random) -> Parts:
    """A sofa with arms."""
    width, material = rng.uniform(1.2, 2.2), materials.anything(rng)
    body = [
        meshes.box((width, 0.8, 0.42), 0.5),
        meshes.place(meshes.box((width, 0.22, 0.85), 0.5), (0, 0.35, 0)),
        meshes.place(meshes.box((0.2, 0.8, 0.62), 0.5), (-width / 2, 0, 0)),
        meshes.place(meshes.box((0.2, 0.8, 0.62), 0.5), (width / 2, 0, 0)),
    ]
    cushion = meshes.place(meshes.rock(rng, 0.16, 0.1), (rng.uniform(-0.4, 0.4) * width, 0.1, 0.42))
    return [(meshes.join(body), material), (cushion, materials.anything(rng))]


def shelf(rng: Random) -> Parts:
    """A bookcase with books in it."""
    width, height, boards = rng.uniform(0.6, 1.6), rng.uniform(0.9, 2.2), int(rng.integers(3, 6))
    frame = [meshes.place(meshes.box((0.03, 0.32, height)), (x, 0, 0)) for x in (-width / 2, width / 2)]
    frame.append(meshes.place(meshes.box((width, 0.02, height)), (0, 0.15, 0)))
    levels = np.linspace(0.02, height - 0.03, boards)
    frame += [meshes.place(meshes.box((width, 0.32, 0.03)), (0, 0, z)) for z in levels]
    parts: Parts = [(meshes.join(frame), materials.wood(rng))]
    books: list[list[Mesh]] = [[], [], [], []]
    for low, high in pairwise(levels):
        x = -width / 2 + 0.05
        while x < width / 2 - 0.08:
            thick, tall = rng.uniform(0.02, 0.07), (high - low) * rng.uniform(0.5, 0.85)
            if rng.random() < 0.8:
                book = meshes.box((thick, 0.2, tall))
                books[rng.integers(4)].append(meshes.place(book, (x + thick / 2, -0.03, low + 0.03)))
            x += thick * 1.05
    parts += [(meshes.join(group), materials.paint(rng)) for group in books if group]
    return parts


def cabinet(rng: Random) -> Parts:
    """A closed cabinet."""
    size = (rng.uniform(0.4, 1.4), rng.uniform(0.35, 0.6), rng.uniform(0.4, 2.0))
    doors = int(rng.integers(1, 4))
    width = size[0] / doors
    fronts = [
        meshes.place(meshes.box((width * 0.9, 0.02, size[2] * 0.9)), (x, -size[1] / 2 - 0.01, size[2] * 0.05))
        for x in (np.arange(doors) + 0.5) * width - size[0] / 2
    ]
    return [(meshes.box(size), materials.wood(rng)), (meshes.join(fronts), materials.anything(rng))]


def floor_lamp(rng: Random) -> Parts:
    """A lamp on a tall foot."""
    height = rng.uniform(1.2, 1.8)
    path = np.array([[0, 0, 0.02], [0, 0, height / 2], [0, 0, height]])
    shade = meshes.cone(0.22, 0.3, 0.14, height - 0.05)
    colour = textures.colour(rng, saturation=(0.05, 0.4), value=(0.7, 0.95))
    return [
        (meshes.join([meshes.tube(path, 0.015), meshes.cone(0.16, 0.03, 0.16)]), materials.metal(rng)),
        (shade, materials.lamp(colour, rng.uniform(0.3, 1.5))),
    ]


def vessel(rng: Random, radius: float, height: float, glass: bool = False) -> Parts:
    """A vase, bottle, bowl or chessman, of glass if wanted."""
    return [(meshes.vase(rng, radius, height), materials.GLASS if glass else materials.anything(rng))]


def ball(rng: Random, radius: float, material: Material | None = None) -> Parts:
    """A ball of ``radius`` metres."""
    return [(Sphere((0, 0, radius), radius), material or materials.anything(rng))]


def block(rng: Random, size: tuple[float, float, float], material: Material | None = None) -> Parts:
    """A box of ``size`` metres."""
    return [(meshes.box(size, max(size) / rng.integers(1, 4)), material or materials.anything(rng))]


def cup(rng: Random, radius: float, height: float) -> Parts:
    """A cup with a handle: the wall has an inside."""
    profile = np.array(
        [[1e-4, 0], [radius * 0.8, 0], [radius, height], [radius * 0.9, height], [radius * 0.7, 0.1 * height]]
    )
    angle = np.linspace(-1.3, 1.3, 10)
    bow = radius * 0.45
    handle = np.stack(
        [radius * 0.9 + bow * np.cos(angle), 0 * angle, height * 0.5 + height * 0.3 * np.sin(angle)], axis=1
    )
    material = materials.anything(rng)
    return [
        (meshes.lathe(np.concatenate([profile, [[1e-4, 0.1 * height]]])), material),
        (meshes.tube(handle, radius * 0.1), material),
    ]


def houseplant(rng: Random, height: float) -> Parts:
    """A pot with long thin leaves."""
    pot = meshes.cone(height * 0.16, height * 0.3, height * 0.22)
    blades = []
    for _ in range(rng.integers(8, 18)):
        angle, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6) * height
        t = np.linspace(0, 1, 6)
        path = np.stack(
            [
                lean * t**1.6 * np.cos(angle),
                lean * t**1.6 * np.sin(angle),
                height * (0.28 + 0.7 * t - 0.2 * lean * t**3),
            ],
            axis=1,
        )
        blades.append(meshes.tube(path, height * 0.025 * (1.05 - t), 5))
    return [(pot, materials.anything(rng)), (meshes.join(blades), materials.leaf(rng))]
