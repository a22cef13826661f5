"""Where cameras stand: positions drawn by the scene, kept only when the view is worth a picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dav2.scenes.capture import Array, Camera, look_at, rotation
from dav2.scenes.render import Renderer
from dav2.scenes.scene import Scene
from dav2.scenes.surfaces import Seen
from dav2.scenes.textures import Random

TRIES = 40
PREVIEW_WIDTH = 40


class Lens(NamedTuple):
    """How pictures are taken.

    Attributes:
        width, height: pixels.
        fov: range of horizontal fields of view, degrees.
        roll: standard deviation of the roll, degrees.
        tilt: pitch and yaw of the image plane against the optical axis, degrees.
    """

    width: int
    height: int
    fov: tuple[float, float] = (50.0, 80.0)
    roll: float = 2.0
    tilt: tuple[float, float] = (0.0, 0.0)

    def tilt_matrix(self) -> Array:
        """(3, 3) rotation of the image plane by ``tilt`` = (pitch, yaw) degrees."""
        return rotation(pitch=self.tilt[0], yaw=self.tilt[1])


def stand(scene: Scene, renderer: Renderer, lens: Lens, rng: Random) -> Camera:
    """Draw cameras until one sees things at fit depths; the best of ``TRIES`` if none is quite fit."""
    best, best_score = None, -1.0
    tilt = lens.tilt_matrix()
    for _ in range(TRIES):
        aim = scene.aim(rng)
        pose = look_at(np.array(aim.origin), np.array(aim.target))
        pose[:3, :3] = pose[:3, :3] @ rotation(roll=rng.normal(0, lens.roll))
        fov = rng.uniform(*lens.fov)
        small = (PREVIEW_WIDTH, max(round(PREVIEW_WIDTH * lens.height / lens.width), 8))
        score = _score(renderer.see(Camera.with_fov(*small, fov, pose, tilt)), scene.depth_range)
        if score > best_score:
            best, best_score = Camera.with_fov(lens.width, lens.height, fov, pose, tilt), score
        if score >= 1:
            break
    assert best is not None
    return best


def _score(view: Seen, allowed: tuple[float, float]) -> float:
    """1 for a good view; less where it is too near, mostly sky, flat, or filled by one thing."""
    depth, things = view.depth, view.things
    known = depth[np.isfinite(depth)]
    if known.size < 0.3 * depth.size:
        return 0.0
    near, middle, far = np.quantile(known, [0.0, 0.5, 0.95])
    seen, counts = np.unique(things[things >= 0], return_counts=True)
    checks = (
        near > allowed[0],
        middle < allowed[1],
        far > 1.6 * np.quantile(known, 0.05),
        len(seen) >= 4,
        counts.max() < 0.7 * things.size,
    )
    return float(np.mean(checks))
