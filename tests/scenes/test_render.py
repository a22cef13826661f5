"""Mitsuba's depth against closed forms, and the promises about seeds."""

from __future__ import annotations

import numpy as np
import pytest

from dav2.scenes.capture import Camera, look_at, rotation
from dav2.scenes.kinds import KINDS
from dav2.scenes.kinds.indoor import panel
from dav2.scenes.meshes import box, place
from dav2.scenes.render import Renderer
from dav2.scenes.scene import Aim, Finish, Light, Material, Scene, Sphere
from dav2.scenes.stand import Lens, stand
from tests.scenes import analytic

SHAPES = analytic.Shapes()


def plain_scene(finish: Finish = "matt") -> Scene:
    """The scene of ``analytic.Shapes()`` with everything in ``finish``."""
    scene = Scene(lambda rng: Aim((0, 0, 1.5), (0, 5, 1)), ambient=(0.5, 0.6, 0.7))
    material = Material((0.7, 0.4, 0.2), finish)
    for x, y, z, radius in SHAPES.spheres:
        scene.thing((Sphere((x, y, z), radius), material))
    for low, high in SHAPES.boxes:
        size = tuple(float(b - a) for a, b in zip(low, high, strict=True))
        scene.thing((place(box(size), ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2])), material))
    far = 2e4
    ground = panel(np.array([-far, -far, 0.0]), np.array([2 * far, 0, 0]), np.array([0, 2 * far, 0]))
    scene.thing((ground, Material((0.3, 0.5, 0.3))))
    scene.lights.append(Light((0.3, 0.5, -1.0), (1.0, 1.0, 1.0), sun=True))
    return scene


@pytest.mark.parametrize("finish", ["matt", "glass", "pane", "mirror"])
def test_depth_is_that_of_the_first_surface_whatever_it_is_made_of(finish: Finish) -> None:
    truth = analytic.capture(160, 120)
    seen = Renderer(plain_scene(finish)).see(truth.camera)
    near = truth.depth < 200
    assert (seen.things == truth.shape)[near].mean() > 0.999
    both = near & (seen.things == truth.shape)
    np.testing.assert_allclose(seen.depth[both], truth.depth[both], rtol=2e-5)


def test_depth_of_a_tilted_camera_is_measured_along_its_optical_axis() -> None:
    truth = analytic.capture(80, 60, tilt=rotation(pitch=9, yaw=-6))
    seen = Renderer(plain_scene()).see(truth.camera)
    both = (truth.depth < 200) & (seen.things == truth.shape)
    assert both.mean() > 0.3
    np.testing.assert_allclose(seen.depth[both], truth.depth[both], rtol=2e-5)


def test_an_off_centre_principal_point_moves_the_picture() -> None:
    pose = look_at(np.array([0.0, 0, 1.5]), np.array([0.0, 5, 1.0]))
    camera = Camera(80, 60, 70.0, 70.0, 31.0, 36.0, pose)
    seen = Renderer(plain_scene()).see(camera)
    distance, index = analytic.first_hit(SHAPES, camera)
    both = (distance < 200) & (seen.things == index)
    assert both.mean() > 0.3
    np.testing.assert_allclose(seen.depth[both], (distance * camera.rays()[..., 2])[both], rtol=2e-5)


def test_sky_is_infinitely_far_and_belongs_to_no_thing() -> None:
    seen = Renderer(plain_scene()).see(analytic.capture(80, 60).camera)
    assert np.isinf(seen.depth[:10]).all()
    assert (seen.things[:10] == -1).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_gives_the_same_picture_for_the_same_seed(kind: str) -> None:
    pictures = []
    for _ in range(2):
        rng = np.random.default_rng(11)
        scene = KINDS[kind](rng)
        renderer = Renderer(scene)
        camera = stand(scene, renderer, Lens(40, 30), rng)
        pictures.append(renderer.capture(camera, 1, seed=5))
    first, second = pictures
    assert (first.rgb == second.rgb).all()
    assert (first.depth == second.depth).all()
    assert first.rgb.std() > 4
    assert len(np.unique(first.shape)) >= 3
    known = first.depth[np.isfinite(first.depth)]
    assert known.min() > 0


def test_another_seed_gives_another_scene() -> None:
    first, second = (KINDS["indoor"](np.random.default_rng(seed)) for seed in (1, 2))
    assert len(first.shapes) != len(second.shapes) or first.lights != second.lights


def test_smoothing_light_keeps_textures_and_borders() -> None:
    from dav2.scenes.denoise import denoise
    from dav2.scenes.surfaces import Seen

    rng = np.random.default_rng(0)
    things = np.zeros((40, 40), np.int16)
    things[:, 20:] = 1
    paint = np.where((np.indices((40, 40)).sum(0) % 2)[..., None] == 0, 0.2, 0.8).astype(np.float32).repeat(3, -1)
    light = np.where(things == 0, 1.0, 3.0)[..., None]
    noisy = (paint * light * rng.uniform(0.5, 1.5, (40, 40, 1))).astype(np.float32)
    flat = np.zeros((40, 40, 3), np.float32)
    seen = Seen(np.full((40, 40), 2, np.float32), things.astype(np.int32), things, flat[..., :2], flat)
    smooth = denoise(noisy, paint, seen, np.zeros((40, 40), bool))
    error = np.abs(smooth / (paint * light) - 1)
    assert error.mean() < 0.08
    assert np.abs(noisy / (paint * light) - 1).mean() > 0.2
    assert np.median(error[:, 18:22]) < 0.15
