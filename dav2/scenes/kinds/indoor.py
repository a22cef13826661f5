"""Rooms: floor, walls, ceiling, windows, mirrors, pictures, furniture, small things on tables, lamps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dav2.scenes import daylight, materials, meshes, outside, textures, things
from dav2.scenes.meshes import Mesh
from dav2.scenes.scene import Aim, Light, Look, Material, Scene
from dav2.scenes.textures import Random
from dav2.scenes.things import Parts


def panel(corner: np.ndarray, across: np.ndarray, up: np.ndarray) -> Mesh:
    """A rectangle whose texture coordinates are metres."""
    unit = np.array([[(0, 0), (1, 0)], [(0, 1), (1, 1)]], dtype=float)
    points = corner + unit[..., :1] * across + unit[..., 1:] * up
    return meshes.grid(points, unit * [np.linalg.norm(across), np.linalg.norm(up)])


def build(rng: Random) -> Scene:
    """A room of 3 … 9 m with about ten pieces of furniture."""
    width, depth, height = rng.uniform(3, 8), rng.uniform(3.5, 9), rng.uniform(2.3, 3.6)

    def aim(random: Random) -> Aim:
        edge = 0.35
        start = random.uniform([-width / 2 + edge, -depth / 2 + edge], [width / 2 - edge, depth / 2 - edge])
        goal = random.uniform([-width / 2, -depth / 2], [width / 2, depth / 2])
        away = (goal - start) / max(float(np.hypot(*(goal - start))), 0.1) * random.uniform(2, 4)
        eye = random.uniform(0.5, min(2.2, height - 0.3))
        rise = random.normal(-0.25, 0.5)
        return Aim((*start, eye), (*(start + away), eye + rise))

    scene = Scene(aim, depth_range=(0.3, 20.0))
    shell(scene, rng, width, depth, height)
    furnish(scene, rng, width, depth, height)
    light(scene, rng, width, depth, height)
    return scene


def shell(scene: Scene, rng: Random, width: float, depth: float, height: float) -> None:
    """Floor, ceiling and four walls; one of them has a window of glass with the sky behind it."""
    corner = np.array([-width / 2, -depth / 2, 0.0])
    x, y, z = np.array([width, 0, 0]), np.array([0, depth, 0]), np.array([0, 0, height])
    floor = (textures.planks, textures.tiles, textures.clouds, textures.checker, textures.marble)[rng.integers(5)]
    scene.thing((panel(corner, x, y), Material(floor(rng), ("matt", "gloss")[rng.integers(2)])))
    scene.thing((panel(corner + z, y, x), Material(textures.colour(rng, saturation=(0, 0.1), value=(0.6, 0.9)))))
    paper = materials.plaster(rng)
    window = int(rng.integers(4))
    for number, (start, across) in enumerate(((corner, x), (corner + x, y), (corner + x + y, -x), (corner + y, -y))):
        material = paper if rng.random() < 0.75 else materials.plaster(rng)
        if number == window:
            _window_wall(scene, rng, start, across, z, material)
        else:
            scene.thing((panel(start, across, z), material))
            _hang(scene, rng, start, across, height)
    mood = daylight.MOODS[("clone", "morning", "overcast", "sunset")[rng.integers(4)]]
    scene.sky = daylight.panorama(rng, mood) * np.float32(1.5)


def _window_wall(
    scene: Scene, rng: Random, start: np.ndarray, across: np.ndarray, up: np.ndarray, wall: Material
) -> None:
    left, right = np.clip(np.sort(rng.uniform(0.1, 0.9, 2)) + np.array([-0.1, 0.1]), 0.05, 0.95)
    low, high = rng.uniform(0.05, 0.4), rng.uniform(0.7, 0.92)
    scene.thing(
        (panel(start, across * left, up), wall),
        (panel(start + across * right, across * (1 - right), up), wall),
        (panel(start + across * left, across * (right - left), up * low), wall),
        (panel(start + across * left + up * high, across * (right - left), up * (1 - high)), wall),
    )
    hole = start + across * left + up * low
    span, rise = across * (right - left), up * (high - low)
    scene.thing((panel(hole, span, rise), materials.PANE))
    bars = [
        meshes.tube(np.array([hole + span * s, hole + span * s + rise / 2, hole + span * s + rise]), 0.03, 4)
        for s in np.linspace(0, 1, rng.integers(2, 5))
    ]
    bars += [
        meshes.tube(np.array([hole + rise * s, hole + rise * s + span / 2, hole + rise * s + span]), 0.03, 4)
        for s in (0, 1)
    ]
    scene.thing((meshes.join(bars), materials.anything(rng, 1.0)))


def _hang(scene: Scene, rng: Random, start: np.ndarray, across: np.ndarray, height: float) -> None:
    """Pictures, a mirror or a door on a wall, a little off it so that they have edges."""
    length = float(np.linalg.norm(across))
    along = across / length
    inward = np.array([-along[1], along[0], 0.0])
    for _ in range(rng.integers(0, 3)):
        wide, tall = rng.uniform(0.3, 1.2), rng.uniform(0.3, 1.0)
        if length < wide + 0.4:
            continue
        place = rng.uniform(0.2, length - wide - 0.2)
        foot = start + along * place + inward * 0.03 + np.array([0, 0, rng.uniform(0.9, height - tall - 0.1)])
        material = (
            materials.MIRROR if rng.random() < 0.2 else Material(textures.picture(rng), repeat=1 / max(wide, tall))
        )
        scene.thing((panel(foot, along * wide, np.array([0, 0, tall])), material))


def furnish(scene: Scene, rng: Random, width: float, depth: float, height: float) -> None:
    """Furniture at random free places, tables laden with small things, a beam or column now and then."""
    taken: list[tuple[float, float, float]] = []
    pieces: list[tuple[Callable[[Random], Parts], float]] = [
        (things.chair, 0.4),
        (things.chair, 0.4),
        (things.sofa, 1.0),
        (things.shelf, 0.7),
        (things.cabinet, 0.6),
        (things.floor_lamp, 0.3),
        (lambda random: things.houseplant(random, random.uniform(0.5, 1.6)), 0.35),
        (lambda random: outside.figure(random, random.uniform(0.2, 0.6)), 0.3),
        (lambda random: things.vessel(random, 0.2, random.uniform(0.4, 1.0)), 0.3),
        (outside.person, 0.35),
    ]

    def free(radius: float) -> tuple[float, float] | None:
        for _ in range(20):
            x = rng.uniform(-width / 2 + radius, width / 2 - radius)
            y = rng.uniform(-depth / 2 + radius, depth / 2 - radius)
            if all(np.hypot(x - a, y - b) > radius + r for a, b, r in taken):
                taken.append((x, y, radius))
                return x, y
        return None

    for _ in range(rng.integers(1, 4)):
        size = (rng.uniform(0.6, 1.8), rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.95))
        spot = free(max(size[:2]) * 0.6)
        if spot:
            turn = rng.uniform(0, 2 * np.pi)
            things.put(scene, things.table(rng, *size), (*spot, 0), turn)
            lay(scene, rng, size, spot, turn)
    for _ in range(rng.integers(4, 11)):
        make, radius = pieces[rng.integers(len(pieces))]
        spot = free(radius)
        if spot:
            turn = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else rng.integers(4) * np.pi / 2
            things.put(scene, make(rng), (*spot, 0), turn)
    if rng.random() < 0.4 and (spot := free(0.2)):
        things.put(scene, things.block(rng, (0.25, 0.25, height), materials.plaster(rng)), (*spot, 0))
    for _ in range(rng.integers(0, 3)):
        drop = rng.uniform(0.4, 1.2)
        cord = meshes.tube(np.array([[0, 0, 0], [0, 0, -drop / 2], [0, 0, -drop]]), 0.012)
        shade = meshes.cone(0.2, 0.18, 0.06, -drop - 0.15)
        spot = (rng.uniform(-0.4, 0.4) * width, rng.uniform(-0.4, 0.4) * depth)
        things.put(scene, [(cord, materials.metal(rng)), (shade, materials.paint(rng))], (*spot, height))


def lay(
    scene: Scene,
    rng: Random,
    size: tuple[float, float, float],
    at: tuple[float, float],
    turn: float,
    glass: float = 0.1,
) -> None:
    """Small things on a table top of ``size`` at ``at``; each is of glass with probability ``glass``."""
    for _ in range(rng.integers(2, 8)):
        x, y = rng.uniform(-0.4, 0.4) * size[0], rng.uniform(-0.4, 0.4) * size[1]
        spot = (at[0] + x * np.cos(turn) - y * np.sin(turn), at[1] + x * np.sin(turn) + y * np.cos(turn), size[2])
        scale = rng.uniform(0.1, 0.35)
        clear = rng.random() < glass
        parts = things.vessel(rng, scale * 0.35, scale, glass=True) if clear else outside.figure(rng, scale)
        things.put(scene, parts, spot, rng.uniform(0, 2 * np.pi))


def light(scene: Scene, rng: Random, width: float, depth: float, height: float) -> None:
    """One to three point lights near the ceiling; sometimes the sun through the window."""
    for _ in range(rng.integers(1, 4)):
        warm = textures.colour(rng, (0.05, 0.15), (0.0, 0.35), (0.8, 1.0))
        place = (rng.uniform(-0.35, 0.35) * width, rng.uniform(-0.35, 0.35) * depth, height - rng.uniform(0.2, 0.7))
        strength = rng.uniform(0.4, 1.5) * width * depth / 16
        scene.lights.append(Light(place, (warm[0] * strength, warm[1] * strength, warm[2] * strength)))
    if rng.random() < 0.4:
        scene.lights.append(daylight.sunlight(rng, daylight.MOODS["morning"]))
    scene.look = Look(exposure=float(rng.uniform(0.7, 1.15)))
