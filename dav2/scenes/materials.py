"""Random materials for random things."""

from __future__ import annotations

from dav2.scenes import textures
from dav2.scenes.scene import Finish, Material
from dav2.scenes.textures import Colour, Random

GLASS = Material(finish="glass")
PANE = Material(finish="pane")
MIRROR = Material(finish="mirror")


def anything(rng: Random, plain: float = 0.4) -> Material:
    """Plain with probability ``plain``, else patterned; mostly matt, sometimes glossy or metal."""
    finish: Finish = ("matt", "gloss", "metal")[rng.choice(3, p=[0.75, 0.2, 0.05])]
    if rng.random() < plain or finish == "metal":
        return Material(textures.colour(rng), finish)
    return Material(textures.pattern(rng), finish, float(rng.choice([0.5, 1, 2])))


def wood(rng: Random) -> Material:
    """Wood of a random tone."""
    return Material(textures.planks(rng), ("matt", "gloss")[rng.integers(2)])


def metal(rng: Random) -> Material:
    """Rough or polished metal."""
    return Material(textures.colour(rng, saturation=(0, 0.25), value=(0.5, 0.9)), "metal")


def leaf(rng: Random) -> Material:
    """Green of a leaf."""
    autumn = rng.random() < 0.25
    hue = (0.02, 0.14) if autumn else (0.2, 0.38)
    return Material(textures.colour(rng, hue, (0.35, 0.8), (0.12, 0.5)))


def bark(rng: Random) -> Material:
    """Brown of bark."""
    return Material(textures.colour(rng, (0.04, 0.1), (0.2, 0.5), (0.1, 0.35)))


def paint(rng: Random) -> Material:
    """Lacquer of a car or a toy."""
    return Material(textures.colour(rng, saturation=(0.1, 0.95), value=(0.1, 0.9)), "gloss")


def plaster(rng: Random) -> Material:
    """A wall: pale and plain, patterned paper, brick, tiles or wood."""
    make = rng.choice(5, p=[0.45, 0.2, 0.15, 0.1, 0.1])
    pale: Colour = textures.colour(rng, saturation=(0.0, 0.35), value=(0.45, 0.9))
    if make == 0:
        return Material(textures.grain(rng, textures.blend(textures.pink(rng, 1.5), pale, pale), 0.15), repeat=0.5)
    pattern = (textures.stripes, textures.bricks, textures.tiles, textures.planks)[make - 1]
    return Material(pattern(rng))


def lamp(colour: Colour, radiance: float) -> Material:
    """A surface that gives light."""
    return Material(colour, glow=radiance)
