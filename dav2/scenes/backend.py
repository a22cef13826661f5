"""The few calls into Mitsuba that surfaces and light share; it is imported on first use."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from dav2.extras import require
from dav2.scenes.capture import Camera
from dav2.scenes.meshes import Mesh

if TYPE_CHECKING:
    import mitsuba as mi

NEAR, FAR = 1e-3, 1e5


def mitsuba() -> ModuleType:
    """Mitsuba in ``scalar_rgb``, one thread: many processes are faster, and the same seed gives the same bytes.

    Raises:
        MissingExtraError: Mitsuba is not installed.
    """
    require("mitsuba")
    import mitsuba as mi

    if mi.variant() != "scalar_rgb":
        mi.set_variant("scalar_rgb")
        import drjit

        drjit.set_thread_count(1)
    return mi


def sensor(camera: Camera, sampler: dict[str, object]) -> mi.Sensor:
    """``camera`` as a Mitsuba sensor whose pixels do not share samples."""
    mi = mitsuba()
    # Mitsuba's cameras have x to the left and y up.
    to_world = camera.image_to_world() @ np.diag([-1.0, -1.0, 1.0, 1.0])
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": float(np.degrees(2 * np.arctan(camera.width / 2 / camera.fx))),
            "fov_axis": "x",
            "principal_point_offset_x": 0.5 - camera.cx / camera.width,
            "principal_point_offset_y": 0.5 - camera.cy / camera.height,
            "near_clip": NEAR,
            "far_clip": FAR,
            "to_world": mi.ScalarTransform4f(to_world),
            "film": {"type": "hdrfilm", "width": camera.width, "height": camera.height, "rfilter": {"type": "box"}},
            "sampler": sampler,
        }
    )


def load_mesh(mesh: Mesh, name: str, **children: dict[str, object]) -> mi.Mesh:
    """``mesh`` as a Mitsuba shape with ``children`` (``bsdf=…``, ``emitter=…``)."""
    mi = mitsuba()
    properties = mi.Properties()
    for key, value in children.items():
        properties[key] = mi.load_dict(value)
    shape = mi.Mesh(name, len(mesh.vertices), len(mesh.faces), properties, False, True)
    parameters = mi.traverse(shape)
    parameters["vertex_positions"] = np.ascontiguousarray(mesh.vertices, np.float32).ravel()
    parameters["faces"] = np.ascontiguousarray(mesh.faces, np.uint32).ravel()
    parameters["vertex_texcoords"] = np.ascontiguousarray(mesh.uv, np.float32).ravel()
    parameters.update()
    return shape
