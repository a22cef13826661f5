"""Normals of point clouds: those of a slanted plane, whatever bands they are computed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dav2
from dav2.data.images import encode_png
from dav2.families.marigold.weights import save_directory
from dav2.predict import points
from tests.families.marigold.builders import photograph
from tests.families.marigold.test_modalities import trained_on
from tests.predict.test_metric import run


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


def test_a_model_of_normals_says_which_way_points_face(models: Path, tmp_path: Path) -> None:
    save_directory(trained_on("normals"), tmp_path / "normals")
    (tmp_path / "a.png").write_bytes(encode_png(photograph(24, 32)))
    metric = (tmp_path / "a.png", "-m", models / "metric", "-o", tmp_path / "out", "--focal", "50")
    code, said = run(*metric, "--save", "ply", "--normals-from", tmp_path / "normals")
    assert code == 0, said
    body = (tmp_path / "out" / "a.ply").read_bytes().split(b"end_header\n")[1]
    found = np.frombuffer(body, [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])["normal"]
    predicted = dav2.load(tmp_path / "normals", "cpu", "fp32").infer_maps([photograph(24, 32)])[0].values
    expected = predicted.reshape(3, -1).T * [1, -1, -1]
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4) and np.allclose(found, expected, atol=1e-3)
    code, said = run(*metric, "--save", "npy", "--normals-from", tmp_path / "normals")
    assert code == 2 and "it needs --save ply" in said
    code, said = run(*metric, "--save", "ply", "--normals-from", models / "relative")
    assert code == 2 and "needs a model of normals; this one predicts relative disparity" in said
