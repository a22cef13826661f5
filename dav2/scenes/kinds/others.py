"""The remaining kinds of DA-2K: objects, glass and mirrors, aerial, underwater, non-real and adverse pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dav2.scenes import materials, meshes, outside, textures, things
from dav2.scenes.kinds import indoor, outdoor
from dav2.scenes.kinds.indoor import panel
from dav2.scenes.scene import Aim, Light, Look, Material, Scene, Sphere
from dav2.scenes.textures import Random


def _around(
    centre: tuple[float, float, float], distance: tuple[float, float], pitch: tuple[float, float]
) -> Callable[[Random], Aim]:
    """Cameras on a dome around ``centre``; ``pitch`` is how far they look down, in degrees."""

    def aim(random: Random) -> Aim:
        angle, down = random.uniform(0, 2 * np.pi), np.radians(random.uniform(*pitch))
        far = random.uniform(*distance)
        out = np.array([np.cos(angle) * np.cos(down), np.sin(angle) * np.cos(down), np.sin(down)])
        target = np.asarray(centre) + random.normal(0, 0.12, 3) * far
        return Aim(tuple(np.asarray(centre) + far * out), tuple(target))

    return aim


def studio(scene: Scene, rng: Random) -> None:
    """Soft light from everywhere, one or two lamps from the side."""
    tone = textures.colour(rng, saturation=(0, 0.3), value=(0.3, 0.9))
    scene.ambient = tone
    for _ in range(rng.integers(1, 3)):
        angle, power = rng.uniform(0, 2 * np.pi), rng.uniform(1, 6)
        warm = textures.colour(rng, saturation=(0, 0.3), value=(0.8, 1))
        place = (2.5 * np.cos(angle), 2.5 * np.sin(angle), rng.uniform(1.5, 3.5))
        scene.lights.append(Light(place, (warm[0] * power, warm[1] * power, warm[2] * power)))


def objects(rng: Random, glass: float = 0.05) -> Scene:
    """A group of things on a table or on the floor, before a wall or nothing, seen from near."""
    size = (rng.uniform(0.8, 2), rng.uniform(0.8, 2), rng.uniform(0.4, 0.9))
    scene = Scene(_around((0, 0, size[2] + 0.12), (0.5, 1.6), (-5, 55)), depth_range=(0.15, 20.0), floor=size[2])
    things.put(scene, things.table(rng, *size), (0, 0, 0))
    for _ in range(2):
        indoor.lay(scene, rng, (size[0] * 0.7, size[1] * 0.7, size[2]), (0, 0), 0, glass)
    hero = outside.figure(rng, rng.uniform(0.25, 0.5))
    things.put(scene, hero, (0, 0, size[2]), rng.uniform(0, 6.28))
    if rng.random() < 0.85:
        far = rng.uniform(1.2, 4)
        paper = materials.plaster(rng) if rng.random() < 0.6 else materials.anything(rng)
        for side in range(4):
            angle = side * np.pi / 2
            out, along = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
            scene.thing((panel(out * far - along * far, along * 2 * far, np.array([0, 0, 3.0])), paper))
        floor = materials.wood(rng) if rng.random() < 0.5 else materials.anything(rng)
        corner = np.array([-far, -far, 0.0])
        scene.thing((panel(corner, np.array([2 * far, 0, 0]), np.array([0, 2 * far, 0])), floor))
    studio(scene, rng)
    scene.look = Look(exposure=float(rng.uniform(0.7, 1.15)))
    return scene


def transparent_reflective(rng: Random) -> Scene:
    """Glasses and chrome on a table, a room with mirrors, or a street with panes and mirrors standing about."""
    return with_panes(outdoor.build(rng), rng, 9.0) if rng.random() < 0.25 else transparent_indoors(rng)


def transparent_indoors(rng: Random) -> Scene:
    """Glasses and chrome on a table, or a room with mirrors and panes."""
    if rng.random() < 0.4:
        return with_panes(indoor.build(rng), rng, 2.0)
    scene = objects(rng, glass=0.6)
    for _ in range(rng.integers(1, 4)):
        radius, angle = rng.uniform(0.05, 0.16), rng.uniform(0, 2 * np.pi)
        at = (0.35 * np.cos(angle), 0.35 * np.sin(angle), scene.floor)
        things.put(scene, things.ball(rng, radius, materials.MIRROR if rng.random() < 0.6 else materials.GLASS), at)
    return scene


def with_panes(scene: Scene, rng: Random, reach: float) -> Scene:
    """``scene`` with two to four framed mirrors and panes standing within ``reach`` metres of its middle."""
    for _ in range(rng.integers(2, 5)):
        foot = np.array([*rng.uniform(-reach, reach, 2), 0.0])
        angle, wide, tall = rng.uniform(0, np.pi), rng.uniform(0.8, 2.5), rng.uniform(1.2, 2.2)
        along, up = np.array([np.cos(angle), np.sin(angle), 0.0]) * wide, np.array([0, 0, tall])
        rim = meshes.tube(np.array([foot, foot + up, foot + along + up, foot + along]), 0.03, 4)
        clear = materials.MIRROR if rng.random() < 0.5 else materials.PANE
        scene.thing((panel(foot, along, up), clear), (rim, materials.metal(rng)))
    return scene


def aerial(rng: Random, mood: str | None = None) -> Scene:
    """A town or countryside from 15 … 60 m above."""
    size, height = 60.0, rng.uniform(15, 50)

    def aim(random: Random) -> Aim:
        start = np.array([*random.uniform(-25, 25, 2), height * random.uniform(0.8, 1.2)])
        down, heading = np.radians(random.uniform(25, 85)), random.uniform(0, 2 * np.pi)
        way = np.array([np.cos(heading) * np.cos(down), np.sin(heading) * np.cos(down), -np.sin(down)])
        return Aim(tuple(start), tuple(start + way))

    scene = Scene(aim, depth_range=(3.0, 200.0))
    outdoor.flat_ground(scene, Material(textures.ground(rng), repeat=0.1))
    block, road = rng.uniform(18, 30), rng.uniform(2.5, 5)
    tarmac = Material(textures.colour(rng, saturation=(0, 0.1), value=(0.1, 0.4)))
    lines = np.arange(-size, size + 1, block)
    for offset in lines:
        scene.thing(
            (
                panel(np.array([offset - road, -size, 0.05]), np.array([2 * road, 0, 0]), np.array([0, 2 * size, 0])),
                tarmac,
            ),
            (
                panel(np.array([-size, offset - road, 0.06]), np.array([2 * size, 0, 0]), np.array([0, 2 * road, 0])),
                tarmac,
            ),
        )
    tall = rng.uniform(4, 28)
    for x in lines[:-1] + block / 2:
        for y in lines[:-1] + block / 2:
            _city_block(scene, rng, (x, y), block / 2 - road - 1, tall)
        for _ in range(2):
            things.put(scene, outside.car(rng), (x - block / 2 + road / 2, rng.uniform(-size, size), 0), np.pi / 2)
    return outdoor.weather(scene, rng, mood or outdoor.CLEAR[rng.integers(4)])


def _city_block(scene: Scene, rng: Random, centre: tuple[float, float], half: float, tall: float) -> None:
    x, y = centre
    if rng.random() < 0.7:
        for _ in range(rng.integers(1, 4)):
            size = (rng.uniform(0.4, 1.1) * half, rng.uniform(0.4, 1.1) * half, tall * rng.uniform(0.3, 1.2))
            at = (x + rng.uniform(-0.4, 0.4) * half, y + rng.uniform(-0.4, 0.4) * half, 0)
            things.put(scene, outside.house(rng, size), at, rng.integers(4) * np.pi / 2)
    for _ in range(rng.integers(1, 5)):
        at = (x + rng.uniform(-1, 1) * half, y + rng.uniform(-1, 1) * half, 0)
        things.put(scene, outside.tree(rng, rng.uniform(4, 9)), at)


def underwater(rng: Random) -> Scene:
    """A sea bed with stones, coral, weed and fish; the water takes red first."""
    land = meshes.terrain(rng, 25.0, rng.uniform(0.5, 4), metres_per_tile=2)
    lattice = land.vertices[:, 2].reshape(65, 65)

    def level(x: float, y: float) -> float:
        return float(lattice[round((y + 25) / 25 * 32), round((x + 25) / 25 * 32)])

    def aim(random: Random) -> Aim:
        x, y = random.uniform(-14, 14, 2)
        heading, eye = random.uniform(0, 2 * np.pi), level(x, y) + random.uniform(0.6, 4)
        down = np.tan(np.radians(random.normal(-12, 12)))
        return Aim((x, y, eye), (x + 5 * np.sin(heading), y + 5 * np.cos(heading), eye + 5 * down))

    scene = Scene(aim, depth_range=(0.3, 40.0))
    sand = textures.blend(
        textures.pink(rng, 1.0), (0.45, 0.4, 0.3), textures.colour(rng, (0.08, 0.14), (0.15, 0.4), (0.5, 0.8))
    )
    scene.thing((land, Material(textures.grain(rng, sand, 0.6))))
    for _ in range(rng.integers(60, 110)):
        x, y = rng.uniform(-20, 20, 2)
        foot, form = (x, y, level(x, y) - 0.1), rng.random()
        if form < 0.3:
            things.put(scene, outside.stone(rng, rng.uniform(0.15, 1.4)), foot)
        elif form < 0.55:
            things.put(scene, outside.coral(rng, rng.uniform(0.3, 1.4)), foot)
        elif form < 0.75:
            things.put(scene, outside.weed(rng, rng.uniform(0.4, 3)), foot)
        else:
            things.put(
                scene,
                outside.fish(rng, rng.uniform(0.15, 1.2)),
                (x, y, foot[2] + rng.uniform(0.4, 4)),
                rng.uniform(0, 6.28),
            )
    hue = rng.uniform(0.45, 0.62)
    water = textures.colour(rng, (hue, hue + 0.02), (0.6, 0.9), (0.25, 0.6))
    above = tuple(1.6 * value for value in water)
    fade = np.linspace(1, 0, 32, dtype=np.float32)[:, None]
    scene.sky = textures.blend(
        np.repeat(fade, 64, axis=1), (water[0], water[1], water[2]), (above[0], above[1], above[2])
    )
    scene.lights.append(Light((0.2, 0.1, -1.0), (1.2, 1.2, 1.2), sun=True))
    clarity = rng.uniform(0.04, 0.16)
    scene.look = Look(haze=water, density=(clarity * 1.8, clarity, clarity * 0.9), tint=(0.7, 1.0, 1.1))
    return scene


def abstract(rng: Random) -> Scene:
    """Balls, blocks, rings and cones afloat between patterned walls or in empty space."""
    scene = Scene(_around((0, 0, 0), (3, 9), (-40, 60)), depth_range=(0.4, 60.0))
    for _ in range(rng.integers(20, 50)):
        at = tuple(rng.normal(0, 2.2, 3))
        things.put(scene, outside.figure(rng, rng.uniform(0.3, 1.8)), at, rng.uniform(0, 6.28))
    if rng.random() < 0.6:
        half = rng.uniform(5, 12)
        x, y, z = (2 * half * np.eye(3)[axis] for axis in range(3))
        corner = np.full(3, -half)
        for start, first, second in (
            (corner, x, y),
            (corner + z, x, y),
            (corner, x, z),
            (corner + y, x, z),
            (corner, y, z),
            (corner + x, y, z),
        ):
            if rng.random() < 0.75:
                scene.thing((panel(start, first, second), Material(textures.pattern(rng), repeat=0.4)))
    studio(scene, rng)
    for _ in range(rng.integers(0, 3)):
        glow = textures.colour(rng, saturation=(0.3, 0.9), value=(0.8, 1))
        centre = rng.normal(0, 2.5, 3)
        scene.thing((Sphere((centre[0], centre[1], centre[2]), rng.uniform(0.1, 0.4)), materials.lamp(glow, 6.0)))
    return scene


def non_real(rng: Random) -> Scene:
    """Cartoon, sketch, painting or two-tone pictures of real or impossible places."""
    base = (abstract, objects, outdoor.build, indoor.build)[rng.choice(4, p=[0.4, 0.15, 0.25, 0.2])](rng)
    style = (("posterise", "outline"), ("sketch",), ("paint",), ("duotone",), ("outline",), ())[rng.integers(6)]
    return replace(base, look=replace(base.look, style=style))


def adverse_style(rng: Random) -> Scene:
    """Night, fog, rain, snow, blur, noise or wrong exposure."""
    form = rng.integers(7)
    if form < 4:
        mood = ("night", "fog", "rain", "overcast")[form]
        scene = aerial(rng, mood) if rng.random() < 0.15 else outdoor.build(rng, mood)
        if form == 3:
            scene.look = replace(scene.look, haze=(0.75, 0.77, 0.8), density=(0.02,) * 3, style=("snow",))
        return scene
    scene = (indoor.build, outdoor.build, objects)[rng.integers(3)](rng)
    if form == 4:
        scene.look = replace(scene.look, style=("blur", "grain"))
    elif form == 5:
        scene.look = replace(scene.look, exposure=float(rng.choice([0.12, 0.2, 2.5])), style=("grain",))
    else:
        scene.look = replace(scene.look, style=("grey", "grain"))
    return scene
