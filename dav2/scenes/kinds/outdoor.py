"""Streets, parks and fields under the sky."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dav2.scenes import daylight, meshes, outside, textures, things
from dav2.scenes.kinds.indoor import panel
from dav2.scenes.scene import Aim, Material, Scene
from dav2.scenes.textures import Random

FAR = 300.0
CLEAR = ("clone", "morning", "sunset", "overcast")


def build(rng: Random, mood: str | None = None) -> Scene:
    """A street, a park or hills, in ``mood`` or any fair one."""
    scene = (street, park, hills)[rng.choice(3, p=[0.45, 0.35, 0.2])](rng)
    return weather(scene, rng, mood or CLEAR[rng.integers(len(CLEAR))])


def drive(rng: Random) -> Scene:
    """A street on a fair day, as a car sees it."""
    return weather(street(rng), rng, CLEAR[rng.integers(len(CLEAR))])


def weather(scene: Scene, rng: Random, mood: str) -> Scene:
    """``scene`` under the sky, sun and air of ``mood``."""
    colours = daylight.MOODS[mood]
    lit = replace(scene, lights=[daylight.sunlight(rng, colours)], sky=daylight.panorama(rng, colours))
    lit.look = daylight.look(rng, mood)
    return lit


def flat_ground(scene: Scene, material: Material, size: float = FAR) -> None:
    """Lay a square of ground at height 0 to ``size`` metres on all sides of the origin."""
    corner = np.array([-size, -size, 0.0])
    scene.thing((panel(corner, np.array([2 * size, 0, 0]), np.array([0, 2 * size, 0])), material))


def _along_y(eye: tuple[float, float], side: float, pitch: float) -> Callable[[Random], Aim]:
    def aim(random: Random) -> Aim:
        start = np.array([random.uniform(-side, side), random.uniform(-20, 20), random.uniform(*eye)])
        heading = random.normal(0, 0.25) + (np.pi if random.random() < 0.5 else 0)
        way = np.array([np.sin(heading), np.cos(heading), np.tan(np.radians(random.normal(-4, pitch)))])
        return Aim(tuple(start), tuple(start + 10 * way))

    return aim


def street(rng: Random) -> Scene:
    """A road along y between houses, with cars, people, trees, poles, fences and wires."""
    road = rng.uniform(3, 6)
    scene = Scene(_along_y((1.2, 2.6), road * 0.7, 4))
    flat_ground(scene, Material(textures.ground(rng), repeat=0.25))
    asphalt = Material(
        textures.blend(
            textures.pink(rng, 0.8), *(textures.colour(rng, saturation=(0, 0.08), value=(0.08, 0.35)) for _ in range(2))
        )
    )
    scene.thing((panel(np.array([-road, -FAR, 0.02]), np.array([2 * road, 0, 0]), np.array([0, 2 * FAR, 0])), asphalt))
    dashes = [
        panel(np.array([-0.08, y, 0.03]), np.array([0.16, 0, 0]), np.array([0, 2.0, 0]))
        for y in np.arange(-100, 100, 6.0)
    ]
    scene.thing((meshes.join(dashes), Material((0.7, 0.7, 0.65))))
    for side in (-1, 1):
        y = -70.0
        while y < 110:
            size = (rng.uniform(6, 14), rng.uniform(6, 12), rng.uniform(3, 14))
            back = road + rng.uniform(2.5, 8) + size[1] / 2
            if rng.random() < 0.7:
                things.put(scene, outside.house(rng, size), (side * back, y + size[0] / 2, 0), -side * np.pi / 2)
            y += size[0] + rng.uniform(0, 10)
    for _ in range(rng.integers(14, 30)):
        side, y = rng.choice([-1, 1]), rng.uniform(-45, 70)
        kerb = side * (road + rng.uniform(0.5, 2.2))
        form = rng.random()
        if form < 0.3:
            things.put(scene, outside.tree(rng, rng.uniform(3, 9)), (kerb, y, 0))
        elif form < 0.55:
            lane = side * road * rng.uniform(0.35, 0.75)
            things.put(scene, outside.car(rng), (lane, y, 0), np.pi / 2 * (1 if side > 0 else -1))
        elif form < 0.72:
            things.put(scene, outside.lamp_post(rng), (kerb, y, 0), np.pi if side > 0 else 0)
        elif form < 0.87:
            things.put(scene, outside.person(rng), (kerb, y, 0), rng.uniform(0, 6.28))
        elif form < 0.94:
            things.put(scene, outside.fence(rng, rng.uniform(4, 12)), (side * (road + 2.3), y, 0), np.pi / 2)
        else:
            things.put(scene, outside.bush(rng, rng.uniform(0.5, 1.4)), (kerb, y, 0))
    if rng.random() < 0.5:
        things.put(
            scene, outside.wires(rng, 60, rng.uniform(6, 8)), ((road + 1.5) * rng.choice([-1, 1]), 10, 0), np.pi / 2
        )
    return scene


def park(rng: Random) -> Scene:
    """Trees, bushes, stones, people, benches and sculptures on flat ground."""
    scene = Scene(_along_y((0.5, 3.0), 15, 6))
    flat_ground(scene, Material(textures.ground(rng), repeat=rng.choice([0.15, 0.4])))
    for _ in range(rng.integers(25, 50)):
        x, y = rng.uniform(-30, 30), rng.uniform(-45, 45)
        form = rng.random()
        if form < 0.4:
            things.put(scene, outside.tree(rng, rng.uniform(2.5, 10)), (x, y, 0))
        elif form < 0.55:
            things.put(scene, outside.bush(rng, rng.uniform(0.4, 1.5)), (x, y, 0))
        elif form < 0.68:
            things.put(scene, outside.stone(rng, rng.uniform(0.2, 1.6)), (x, y, 0))
        elif form < 0.8:
            things.put(scene, outside.person(rng), (x, y, 0), rng.uniform(0, 6.28))
        elif form < 0.88:
            things.put(scene, outside.fence(rng, rng.uniform(3, 15)), (x, y, 0), rng.uniform(0, 6.28))
        elif form < 0.94:
            things.put(scene, outside.lamp_post(rng), (x, y, 0), rng.uniform(0, 6.28))
        else:
            things.put(scene, outside.figure(rng, rng.uniform(1, 4)), (x, y, 0), rng.uniform(0, 6.28))
    for _ in range(rng.integers(0, 4)):
        size = (rng.uniform(6, 14), rng.uniform(6, 12), rng.uniform(3, 9))
        things.put(
            scene, outside.house(rng, size), (rng.uniform(-40, 40), rng.choice([-1, 1]) * rng.uniform(35, 60), 0)
        )
    return scene


def hills(rng: Random) -> Scene:
    """Rolling ground with trees, stones and huts, seen from a little above."""
    extent, height = 90.0, rng.uniform(4, 16)
    land = meshes.terrain(rng, extent, height)
    lattice = land.vertices[:, 2].reshape(65, 65)

    def level(x: float, y: float) -> float:
        return float(lattice[round((y + extent) / extent * 32), round((x + extent) / extent * 32)])

    def aim(random: Random) -> Aim:
        x, y = random.uniform(-60, 60, 2)
        heading = random.uniform(0, 2 * np.pi)
        eye = level(x, y) + random.uniform(1.5, 5)
        down = np.tan(np.radians(random.normal(-6, 6)))
        return Aim((x, y, eye), (x + 10 * np.sin(heading), y + 10 * np.cos(heading), eye + 10 * down))

    scene = Scene(aim)
    scene.thing((land, Material(textures.ground(rng))))
    for _ in range(rng.integers(50, 90)):
        x, y = rng.uniform(-80, 80, 2)
        foot = (x, y, level(x, y) - 0.3)
        form = rng.random()
        if form < 0.55:
            things.put(scene, outside.tree(rng, rng.uniform(2.5, 9)), foot)
        elif form < 0.85:
            things.put(scene, outside.stone(rng, rng.uniform(0.3, 2.5)), foot)
        elif form < 0.95:
            things.put(scene, outside.bush(rng, rng.uniform(0.4, 1.5)), foot)
        else:
            things.put(
                scene,
                outside.house(rng, (rng.uniform(4, 8), rng.uniform(4, 7), rng.uniform(2.5, 4))),
                foot,
                rng.uniform(0, 6),
            )
    return scene
