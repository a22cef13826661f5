"""Scene + camera → ``Capture``: light from Mitsuba's path tracer, depth from one exact ray per pixel centre.

Depth is that of the first surface hit, be it glass, mirror or wall.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dav2.scenes.backend import load_mesh, mitsuba, sensor
from dav2.scenes.capture import Camera, Capture, Layers
from dav2.scenes.denoise import denoise
from dav2.scenes.looks import develop
from dav2.scenes.meshes import Mesh
from dav2.scenes.scene import Material, Scene, Shape
from dav2.scenes.surfaces import METAL_ROUGHNESS, Picture, Seen, Surfaces

BOUNCES, BOUNCES_IN_GLASS = 3, 8


class Renderer:
    """A scene loaded into Mitsuba; many cameras can look at it."""

    def __init__(self, scene: Scene) -> None:
        self._look = scene.look
        glass = any(shape.material.finish in ("glass", "pane") for shape in scene.shapes)
        self._bounces = BOUNCES_IN_GLASS if glass else BOUNCES
        self._surfaces = Surfaces(scene)
        self._description = scene
        self._scene = _lit(scene)
        self._matt: object = None

    def see(self, camera: Camera) -> Seen:
        """The surfaces before ``camera``, without light."""
        return self._surfaces.see(camera)

    def capture(
        self, camera: Camera, samples: int, seed: int, *, keep_radiance: bool = False, layers: bool = False
    ) -> Capture:
        """Render with ``samples`` light paths per pixel (a square number); noise depends on ``seed`` only.

        ``layers`` adds what the radiance is made of, and keeps the radiance.
        """
        seen = self.see(camera)
        paint, clear = self._surfaces.paint(seen), self._surfaces.clear(seen)
        radiance = denoise(self._light(self._scene, camera, samples, seed), paint, seen, clear)
        rgb = develop(radiance, seen.depth, camera, self._look, np.random.default_rng(seed))
        kept = radiance if keep_radiance or layers else None
        found = self._layers(camera, seen, paint, radiance, samples, seed) if layers else None
        return Capture(rgb, seen.depth, seen.things, camera, kept, found)

    def _light(self, scene: object, camera: Camera, samples: int, seed: int) -> Picture:
        mi = mitsuba()
        integrator = mi.load_dict({"type": "path", "max_depth": self._bounces, "rr_depth": BOUNCES})
        view = sensor(camera, {"type": "multijitter", "sample_count": samples})
        light = np.array(mi.render(scene, sensor=view, integrator=integrator, seed=seed))
        return np.nan_to_num(light).astype(np.float32)

    def _layers(self, camera: Camera, seen: Seen, paint: Picture, radiance: Picture, samples: int, seed: int) -> Layers:
        """Radiance taken apart; the parts add up to it exactly.

        Matt surfaces have no residual: what they send is paint times light. Of glossy ones the scene is rendered once
        more with all gloss taken off, which gives the light; what exceeds paint times light is the residual. Where the
        coat swallows more than it reflects, the light counts as less, so that nothing is negative.
        """
        matter = self._surfaces.matter(seen)
        albedo = np.where(matter.diffuse[..., None], paint, 0).astype(np.float32)
        own = radiance / np.where(albedo > 0, albedo, 1)
        gloss = matter.diffuse & (matter.roughness < 1)
        if gloss.any():
            self._matt = self._matt or _lit(self._description.without_gloss())
            matt = denoise(self._light(self._matt, camera, samples, seed), paint, seen, self._surfaces.clear(seen))
            light = np.where(albedo > 0, matt / np.where(albedo > 0, albedo, 1), 0)
            own = np.where(gloss[..., None], np.minimum(light, own), own)
        shading = np.where(matter.diffuse[..., None], own, 0).astype(np.float32)
        residual = np.maximum(radiance - albedo * shading, 0)
        towards = camera.rays() @ camera.to_world[:3, :3].T
        facing = np.where(np.einsum("hwc,hwc->hw", seen.normal, towards) > 0, -1, 1)[..., None]
        length = np.linalg.norm(seen.normal, axis=-1, keepdims=True)
        known = (seen.shapes >= 0)[..., None] & (length > 0)
        normals = np.where(known, seen.normal * facing / np.where(length > 0, length, 1), np.nan).astype(np.float32)
        return Layers(normals, albedo, shading, residual, paint, matter.roughness, matter.metallicity)


def _lit(scene: Scene) -> object:
    """The scene with its lights, loaded."""
    mi = mitsuba()
    content: dict[str, object] = {"type": "scene"}
    for number, shape in enumerate(scene.shapes):
        content[f"shape{number}"] = _shape(shape, f"shape{number}")
    for number, light in enumerate(scene.lights):
        place = {"direction" if light.sun else "position": list(light.position)}
        power = {"irradiance" if light.sun else "intensity": _rgb(light.power)}
        content[f"light{number}"] = {"type": "directional" if light.sun else "point", **place, **power}
    if scene.sky is not None:
        bitmap = mi.Bitmap(np.ascontiguousarray(scene.sky, np.float32))
        upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
        content["sky"] = {"type": "envmap", "bitmap": bitmap, "to_world": upright}
    elif any(scene.ambient):
        content["sky"] = {"type": "constant", "radiance": _rgb(scene.ambient)}
    return mi.load_dict(content)


def _rgb(colour: Iterable[float]) -> dict[str, object]:
    return {"type": "rgb", "value": [float(value) for value in colour]}


def _shape(shape: Shape, name: str) -> object:
    children = {"bsdf": _bsdf(shape.material)}
    if shape.material.glow:
        radiance = [shape.material.glow * float(value) for value in shape.material.paint]
        children["emitter"] = {"type": "area", "radiance": _rgb(radiance)}
    if isinstance(shape.geometry, Mesh):
        return load_mesh(shape.geometry, name, **children)
    return {"type": "sphere", "center": list(shape.geometry.centre), "radius": shape.geometry.radius, **children}


def _bsdf(material: Material) -> dict[str, object]:
    if material.finish == "glass":
        return {"type": "dielectric", "int_ior": 1.5, "ext_ior": 1.0}
    if material.finish == "pane":
        return {"type": "thindielectric", "int_ior": 1.6, "ext_ior": 1.0}
    if material.finish == "mirror":
        return {"type": "twosided", "bsdf": {"type": "conductor", "material": "Ag"}}
    paint = _paint(material)
    if material.finish == "metal":
        return {
            "type": "twosided",
            "bsdf": {"type": "roughconductor", "alpha": METAL_ROUGHNESS, "specular_reflectance": paint},
        }
    if material.finish == "gloss":
        return {"type": "twosided", "bsdf": {"type": "plastic", "diffuse_reflectance": paint}}
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": paint}}


def _paint(material: Material) -> dict[str, object]:
    if isinstance(material.paint, tuple):
        return _rgb(material.paint)
    mi = mitsuba()
    scale = mi.ScalarTransform3f().scale([material.repeat, material.repeat])
    bitmap = mi.Bitmap(np.ascontiguousarray(material.paint, np.float32))
    return {"type": "bitmap", "bitmap": bitmap, "raw": True, "to_uv": scale, "filter_type": "nearest"}
