"""``Camera`` and ``Capture``: what a renderer hands to the writers of ``dav2.scenes.layouts``.

Camera axes are x right, y down, z forward; pixel (column i, row j) is seen through its centre (i + 0.5, j + 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera, possibly with its image plane tilted against the optical axis.

    Attributes:
        width, height: image size in pixels.
        fx, fy, cx, cy: intrinsics in pixels.
        to_world: (4, 4), camera to world.
        tilt: (3, 3) rotation from the axes of the image plane to those of the camera; identity for an ordinary camera.
            Depth is measured along the z axis of the camera, as for the tilt-shift cameras of Hypersim.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    to_world: Array = field(default_factory=lambda: np.eye(4))
    tilt: Array = field(default_factory=lambda: np.eye(3))

    @classmethod
    def with_fov(
        cls, width: int, height: int, fov: float, to_world: Array | None = None, tilt: Array | None = None
    ) -> Camera:
        """Square pixels, centred principal point, ``fov`` degrees across the width."""
        focal = width / 2 / math.tan(math.radians(fov) / 2)
        return cls(
            width,
            height,
            focal,
            focal,
            width / 2,
            height / 2,
            np.eye(4) if to_world is None else to_world,
            np.eye(3) if tilt is None else tilt,
        )

    def ray_matrix(self) -> Array:
        """(3, 3): homogeneous pixel position (x, y, 1) → ray direction in camera axes, not normalised."""
        inverse = np.array(
            [[1 / self.fx, 0, -self.cx / self.fx], [0, 1 / self.fy, -self.cy / self.fy], [0, 0, 1]],
            dtype=np.float64,
        )
        return np.asarray(self.tilt @ inverse, dtype=np.float64)

    def rays(self) -> Array:
        """(H, W, 3) unit directions in camera axes through the pixel centres."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        directions = np.stack([x, y, np.ones_like(x)], axis=-1) @ self.ray_matrix().T
        return np.asarray(directions / np.linalg.norm(directions, axis=-1, keepdims=True), dtype=np.float64)

    def image_to_world(self) -> Array:
        """(4, 4): axes of the image plane → world; what a renderer with ordinary cameras only is given."""
        tilted = np.eye(4)
        tilted[:3, :3] = self.tilt
        return np.asarray(self.to_world @ tilted, dtype=np.float64)


class Layers(NamedTuple):
    """What a picture is made of: radiance = albedo · shading + residual, in linear light.

    Attributes:
        normals: float32 (H, W, 3), unit, in world axes, on the camera's side; nan where there is no surface.
        albedo: float32 (H, W, 3), share of light that is reflected in all directions; 0 for metal, mirror, glass, lamp.
        shading: float32 (H, W, 3), light arriving on what has an albedo, ≥ 0.
        residual: float32 (H, W, 3), the rest, ≥ 0: highlights, reflections, lamps.
        base: float32 (H, W, 3), colour of the surface whatever its finish; albedo in the sense of metal and roughness.
        roughness, metallicity: float32 (H, W) in [0, 1].
    """

    normals: NDArray[np.float32]
    albedo: NDArray[np.float32]
    shading: NDArray[np.float32]
    residual: NDArray[np.float32]
    base: NDArray[np.float32]
    roughness: NDArray[np.float32]
    metallicity: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Capture:
    """One rendered picture.

    Attributes:
        rgb: uint8 (H, W, 3), sRGB.
        depth: float32 (H, W), metres along the optical axis to the first surface hit; ``+inf`` where there is none.
        shape: int16 (H, W), index of the surface hit, -1 where there is none.
        camera: the camera.
        radiance: float32 (H, W, 3), linear, or ``None``.
        layers: what the radiance is made of, or ``None``.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    shape: NDArray[np.int16]
    camera: Camera
    radiance: NDArray[np.float32] | None = None
    layers: Layers | None = None

    def distance(self) -> NDArray[np.float32]:
        """float32 (H, W), metres along the ray: planar depth / cosine between ray and optical axis."""
        return (self.depth / self.camera.rays()[..., 2]).astype(np.float32)

    def camera_normals(self) -> NDArray[np.float32]:
        """float32 (H, W, 3): the normals of ``layers`` in camera axes x right, y up, z to the viewer.

        Raises:
            ValueError: the capture has no layers.
        """
        if self.layers is None:
            raise ValueError("a capture without layers has no normals")
        return np.asarray(self.layers.normals @ self.camera.to_world[:3, :3] * [1, -1, -1], np.float32)


def look_at(origin: Array, target: Array, up: Array | None = None) -> Array:
    """(4, 4) camera-to-world pose at ``origin`` looking at ``target``; ``up`` is +z of the world by default."""
    forward = np.asarray(target, float) - np.asarray(origin, float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0] if up is None else up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = origin
    return pose


def rotation(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Array:
    """(3, 3) rotation by degrees about the camera axes z (roll), then x (pitch), then y (yaw)."""
    a, b, c = (math.radians(angle) for angle in (pitch, yaw, roll))
    about_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    about_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    about_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z, dtype=np.float64)
