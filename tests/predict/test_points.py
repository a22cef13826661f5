"""Normals of point clouds: those of a slanted plane, whatever bands they are computed in."""

from __future__ import annotations

import numpy as np
import pytest

from dav2.predict import points


def test_a_slanted_plane_has_one_normal_towards_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    normal = np.array([0.3, -0.4, -np.sqrt(0.75)])  # x right, y down, z forward: to the camera
    y, x = np.mgrid[0:40, 0:60]
    rays = np.stack([(x + 0.5 - 30) / 50, (y + 0.5 - 20) / 50, np.ones((40, 60))], axis=-1)
    metres = (-4 * np.sqrt(0.75) / (rays @ normal)).astype(np.float32)
    found = points.normals_in_space(metres, 50.0)
    assert np.allclose(found, normal, atol=2e-3)
    monkeypatch.setattr(points, "BAND", 60 * 7)
    assert np.allclose(points.normals_in_space(metres, 50.0), found, atol=1e-5)
    places = points.in_space(metres, 50.0)
    assert np.allclose(places @ normal, -4 * np.sqrt(0.75), atol=1e-4)


def test_edges_have_no_normal() -> None:
    metres = np.where(np.arange(20) < 10, 1.0, 5.0).astype(np.float32) * np.ones((16, 1), np.float32)
    found = points.normals_in_space(metres, 30.0).reshape(16, 20, 3)
    assert np.isfinite(found).all() and np.allclose(found[8, 3], [0, 0, -1], atol=1e-4)
