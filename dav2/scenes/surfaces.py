"""What is seen through each pixel centre: planar depth, thing, normal and paint. One exact ray per pixel, no averages.

All meshes are joined into one for this, because Mitsuba's AOV integrator takes time per shape and pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.scenes.backend import NEAR, load_mesh, mitsuba, sensor
from dav2.scenes.capture import Camera
from dav2.scenes.meshes import Mesh, join
from dav2.scenes.scene import Material, Scene
from dav2.scenes.textures import SIZE

Picture = NDArray[np.float32]
METAL_ROUGHNESS = 0.2
"""Width alpha of the microfacets of metal; roughness, as materials state it, is its square root."""
AOVS = "distance:depth,shape:shape_index,triangle:prim_index,uv:uv,normal:sh_normal"


class Seen(NamedTuple):
    """Per pixel: planar depth (``+inf``: none), number of shape and of thing (-1: none), uv, normal in world axes."""

    depth: Picture
    shapes: NDArray[np.int32]
    things: NDArray[np.int16]
    uv: Picture
    normal: Picture


class Matter(NamedTuple):
    """Per pixel: whether the surface scatters light in all directions, GGX roughness and metallicity in [0, 1]."""

    diffuse: NDArray[np.bool_]
    roughness: Picture
    metallicity: Picture


_MATTER = {
    "matt": (1, 1, 0), "gloss": (1, 0, 0), "metal": (0, METAL_ROUGHNESS**0.5, 1), "mirror": (0, 0, 1),
    "glass": (0, 0, 0), "pane": (0, 0, 0),
}  # fmt: skip
_LAMP = (0, 1, 0)


class Surfaces:
    """The surfaces of a scene, without light."""

    def __init__(self, scene: Scene) -> None:
        self._materials = [shape.material for shape in scene.shapes]
        self._owner = np.array([*(shape.thing for shape in scene.shapes), -1], np.int16)
        solid = [n for n, shape in enumerate(scene.shapes) if isinstance(shape.geometry, Mesh)]
        meshes = [shape.geometry for shape in scene.shapes if isinstance(shape.geometry, Mesh)]
        self._triangle_owner = np.repeat(solid, [len(mesh.faces) for mesh in meshes])
        content: dict[str, object] = {"type": "scene", "meshes": load_mesh(join(meshes), "meshes")}
        for number, shape in enumerate(scene.shapes):
            if not isinstance(shape.geometry, Mesh):
                ball = {"type": "sphere", "center": list(shape.geometry.centre), "radius": shape.geometry.radius}
                content[f"sphere{number}"] = ball
        self._scene = mitsuba().load_dict(content)
        names = [shape.id() for shape in self._scene.shapes()]
        # Mitsuba sorts the shapes, so their numbers are looked up by name; 0 stands for no surface, -1 for a mesh.
        self._owners = np.array([-2, *(-1 if n == "meshes" else int(n.removeprefix("sphere")) for n in names)])

    def see(self, camera: Camera) -> Seen:
        """Cast one ray through every pixel centre of ``camera``."""
        mi = mitsuba()
        centre = {"type": "stratified", "sample_count": 1, "jitter": False}
        integrator = mi.load_dict({"type": "aov", "aovs": AOVS})
        image = np.array(mi.render(self._scene, sensor=sensor(camera, centre), integrator=integrator))
        owner = self._owners[np.rint(image[..., 1]).astype(int)]
        triangle = np.clip(np.rint(image[..., 2]).astype(int), 0, len(self._triangle_owner) - 1)
        shapes = np.where(owner == -1, self._triangle_owner[triangle], np.where(owner == -2, -1, owner))
        # Mitsuba measures from the near plane, which is parallel to the image plane.
        distance = image[..., 0] + NEAR / replace(camera, tilt=np.eye(3)).rays()[..., 2]
        depth = np.where(shapes >= 0, distance * camera.rays()[..., 2], np.inf).astype(np.float32)
        uv, normal = image[..., 3:5].astype(np.float32), image[..., 5:8].astype(np.float32)
        return Seen(depth, shapes.astype(np.int32), self._owner[shapes], uv, normal)

    def paint(self, seen: Seen) -> Picture:
        """(H, W, 3) reflectance at the pixel centres, textures averaged over the pixel's footprint; 1 where none."""
        paint = np.ones((*seen.shapes.shape, 3), np.float32)
        footprint = _footprint(seen)
        for number in np.unique(seen.shapes[seen.shapes >= 0]):
            here = seen.shapes == number
            material = self._materials[number]
            if isinstance(material.paint, tuple):
                paint[here] = material.paint
            else:
                paint[here] = _lookup(material, seen.uv[here], footprint[here])
        return paint

    def matter(self, seen: Seen) -> Matter:
        """What the surfaces are made of, pixel by pixel."""
        table = np.array([_MATTER[m.finish] if m.glow == 0 else _LAMP for m in self._materials] + [_LAMP], np.float32)
        diffuse, roughness, metallicity = table[seen.shapes].transpose(2, 0, 1)
        return Matter(diffuse > 0, roughness, metallicity)

    def clear(self, seen: Seen) -> NDArray[np.bool_]:
        """(H, W): sky, mirror, glass, lamp: what is seen there is not light on paint."""
        flags = [m.finish in ("mirror", "glass", "pane") or m.glow > 0 for m in self._materials]
        return np.array([*flags, True])[seen.shapes]


def _footprint(seen: Seen) -> Picture:
    """(H, W) extent of a pixel in texture coordinates, from differences inside one shape."""
    size = np.zeros(seen.shapes.shape, np.float32)
    for axis in (0, 1):
        step = np.abs(np.roll(seen.uv, -1, axis) - seen.uv).max(axis=-1)
        back = np.abs(np.roll(seen.uv, 1, axis) - seen.uv).max(axis=-1)
        step = np.where(np.roll(seen.shapes, -1, axis) == seen.shapes, step, np.inf)
        back = np.where(np.roll(seen.shapes, 1, axis) == seen.shapes, back, np.inf)
        nearest = np.minimum(step, back)
        size = np.maximum(size, np.where(np.isfinite(nearest), nearest, 0))
    return size


def _lookup(material: Material, uv: Picture, footprint: Picture) -> Picture:
    """Texture values at (N, 2) ``uv`` from the level of detail that fits (N,) ``footprint``."""
    bitmap = np.asarray(material.paint, np.float32)
    level = np.log2(np.maximum(footprint * material.repeat * SIZE, 1)).round().astype(int)
    level = np.minimum(level, int(np.log2(SIZE)))
    out = np.empty((len(uv), 3), np.float32)
    for detail in np.unique(level):
        size = SIZE >> int(detail)
        small = cv2.resize(bitmap, (size, size), interpolation=cv2.INTER_AREA).reshape(size, size, 3)
        here = level == detail
        cell = uv[here] * (material.repeat * size)
        column, row = np.floor(cell[:, 0]).astype(int) % size, np.floor(cell[:, 1]).astype(int) % size
        out[here] = small[row, column]
    return out
