"""``Scene``: surfaces, lights, sky and look, described without the renderer; ``dav2.scenes.render`` draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from dav2.scenes.meshes import Mesh
from dav2.scenes.textures import Bitmap, Colour, Random

Finish = Literal["matt", "gloss", "metal", "mirror", "glass", "pane"]


class Sphere(NamedTuple):
    """An exact sphere (not a mesh)."""

    centre: tuple[float, float, float]
    radius: float


class Material(NamedTuple):
    """How a surface looks.

    Attributes:
        paint: linear colour or bitmap; ignored by ``mirror``, ``glass`` (solid) and ``pane`` (thin).
        finish: matt or gloss (a clear coat), metal (brushed), mirror, glass, pane.
        repeat: how often the bitmap repeats per unit of texture coordinate.
        glow: linear radiance the surface emits (a lamp), 0 for none.
    """

    paint: Colour | Bitmap = (0.5, 0.5, 0.5)
    finish: Finish = "matt"
    repeat: float = 1.0
    glow: float = 0.0


class Shape(NamedTuple):
    """A surface of one material; ``thing`` is the number of what it belongs to."""

    geometry: Mesh | Sphere
    material: Material
    thing: int


class Light(NamedTuple):
    """A point light (``position`` in metres, ``power`` as intensity) or, with ``sun``, a direction it shines along."""

    position: tuple[float, float, float]
    power: Colour
    sun: bool = False


class Aim(NamedTuple):
    """Where a camera may stand and look."""

    origin: tuple[float, float, float]
    target: tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """What happens to light between surface and picture.

    Attributes:
        haze: linear colour that distance fades into.
        density: fading per metre for red, green and blue; 0 is clear air.
        exposure: brightness of the picture relative to the standard tone mapping.
        tint: factor per channel on linear light.
        style: names of effects of ``dav2.scenes.looks``, applied in order.
    """

    haze: Colour = (0.6, 0.65, 0.7)
    density: Colour = (0.0, 0.0, 0.0)
    exposure: float = 1.0
    tint: Colour = (1.0, 1.0, 1.0)
    style: tuple[str, ...] = ()


@dataclass
class Scene:
    """Shapes sorted into *things*: the surfaces of one thing (a table and its legs) share its number.

    Attributes:
        sky: float32 (H, W, 3) panorama seen and shining where there is no surface; row 0 is the zenith.
        ambient: linear radiance from everywhere where there is no ``sky``.
        aim: draws a camera position and target.
        floor: height of the surface that small things stand on.
        depth_range: metres; a camera whose nearest or median depth lies outside is drawn again.
    """

    aim: Callable[[Random], Aim]
    shapes: list[Shape] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    sky: Bitmap | None = None
    ambient: Colour = (0.0, 0.0, 0.0)
    look: Look = field(default_factory=Look)
    depth_range: tuple[float, float] = (0.3, 80.0)
    floor: float = 0.0
    things: int = 0

    def thing(self, *parts: tuple[Mesh | Sphere, Material]) -> int:
        """Add one thing made of ``parts``; returns its number."""
        number = self.things
        self.things += 1
        self.shapes += [Shape(geometry, material, number) for geometry, material in parts]
        return number

    def without_gloss(self) -> Scene:
        """The same scene with every glossy surface matt."""
        matt = []
        for shape in self.shapes:
            shines = shape.material.finish == "gloss"
            matt.append(shape._replace(material=shape.material._replace(finish="matt")) if shines else shape)
        return replace(self, shapes=matt)
