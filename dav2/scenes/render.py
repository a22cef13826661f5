"""Scene + camera → ``Capture``: light from Mitsuba's path tracer, depth from one exact ray per pixel centre.

Depth is that of the first surface hit, be it glass, mirror or wall.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dav2.scenes.backend import load_mesh, mitsuba, sensor
from dav2.scenes.capture import Camera, Capture
from dav2.scenes.denoise import denoise
from dav2.scenes.looks import develop
from dav2.scenes.meshes import Mesh
from dav2.scenes.scene import Material, Scene, Shape
from dav2.scenes.surfaces import Seen, Surfaces

BOUNCES, BOUNCES_IN_GLASS = 3, 8


class Renderer:
    """A scene loaded into Mitsuba; many cameras can look at it."""

    def __init__(self, scene: Scene) -> None:
        self._look = scene.look
        glass = any(shape.material.finish in ("glass", "pane") for shape in scene.shapes)
        self._bounces = BOUNCES_IN_GLASS if glass else BOUNCES
        self._surfaces = Surfaces(scene)
        content: dict[str, Any] = {"type": "scene"}
        for number, shape in enumerate(scene.shapes):
            content[f"shape{number}"] = _shape(shape, f"shape{number}")
        for number, light in enumerate(scene.lights):
            place = {"direction" if light.sun else "position": list(light.position)}
            power = {"irradiance" if light.sun else "intensity": _rgb(light.power)}
            content[f"light{number}"] = {"type": "directional" if light.sun else "point", **place, **power}
        mi = mitsuba()
        if scene.sky is not None:
            bitmap = mi.Bitmap(np.ascontiguousarray(scene.sky, np.float32))
            upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
            content["sky"] = {"type": "envmap", "bitmap": bitmap, "to_world": upright}
        elif any(scene.ambient):
            content["sky"] = {"type": "constant", "radiance": _rgb(scene.ambient)}
        self._scene = mi.load_dict(content)

    def see(self, camera: Camera) -> Seen:
        """The surfaces before ``camera``, without light."""
        return self._surfaces.see(camera)

    def capture(self, camera: Camera, samples: int, seed: int, *, keep_radiance: bool = False) -> Capture:
        """Render with ``samples`` light paths per pixel (a square number); noise depends on ``seed`` only."""
        mi = mitsuba()
        seen = self.see(camera)
        integrator = mi.load_dict({"type": "path", "max_depth": self._bounces, "rr_depth": BOUNCES})
        view = sensor(camera, {"type": "multijitter", "sample_count": samples})
        light = np.array(mi.render(self._scene, sensor=view, integrator=integrator, seed=seed))
        radiance = denoise(
            np.nan_to_num(light).astype(np.float32), self._surfaces.paint(seen), seen, self._surfaces.clear(seen)
        )
        rgb = develop(radiance, seen.depth, camera, self._look, np.random.default_rng(seed))
        return Capture(rgb, seen.depth, seen.things, camera, radiance if keep_radiance else None)


def _rgb(colour: Any) -> dict[str, Any]:
    return {"type": "rgb", "value": [float(value) for value in colour]}


def _shape(shape: Shape, name: str) -> Any:
    children = {"bsdf": _bsdf(shape.material)}
    if shape.material.glow:
        radiance = [shape.material.glow * float(value) for value in shape.material.paint]
        children["emitter"] = {"type": "area", "radiance": _rgb(radiance)}
    if isinstance(shape.geometry, Mesh):
        return load_mesh(shape.geometry, name, **children)
    return {"type": "sphere", "center": list(shape.geometry.centre), "radius": shape.geometry.radius, **children}


def _bsdf(material: Material) -> dict[str, Any]:
    if material.finish == "glass":
        return {"type": "dielectric", "int_ior": 1.5, "ext_ior": 1.0}
    if material.finish == "pane":
        return {"type": "thindielectric", "int_ior": 1.6, "ext_ior": 1.0}
    if material.finish == "mirror":
        return {"type": "twosided", "bsdf": {"type": "conductor", "material": "Ag"}}
    paint = _paint(material)
    if material.finish == "metal":
        return {"type": "twosided", "bsdf": {"type": "roughconductor", "alpha": 0.2, "specular_reflectance": paint}}
    if material.finish == "gloss":
        return {"type": "twosided", "bsdf": {"type": "plastic", "diffuse_reflectance": paint}}
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": paint}}


def _paint(material: Material) -> dict[str, Any]:
    if isinstance(material.paint, tuple):
        return _rgb(material.paint)
    mi = mitsuba()
    scale = mi.ScalarTransform3f().scale([material.repeat, material.repeat])
    bitmap = mi.Bitmap(np.ascontiguousarray(material.paint, np.float32))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "to_uv": scale, "filter_type": "nearest"}
