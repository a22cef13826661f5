"""What the page of ``dav2 demo`` says with colours and points."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dav2.demo.cloud import focal_for, points, stride
from dav2.demo.colours import common_scale
from dav2.demo.models import Models, Shown
from dav2.demo.panels import page_of
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.maps import Maps, Quantity
from dav2.predict.answer import Answer
from dav2.predict.writers import Prediction

FLOOR = np.linspace(0.1, 1.0, 40, dtype=np.float32)[:, None] * np.ones((1, 50), np.float32)


def test_maps_that_differ_by_scale_and_shift_get_the_same_colours() -> None:
    maps = [Maps(Quantity.DISPARITY, FLOOR), Maps(Quantity.DISPARITY, 7 * FLOOR - 3), Maps(Quantity.DEPTH, 2 - FLOOR)]
    scale = common_scale(maps)
    first, second, turned = (each.astype(int) for each in scale.pictures())
    # One step of the 256 colours, where rounding falls on an edge.
    assert np.abs(first - second).max() <= 12 and np.abs(first - turned).max() <= 12
    assert scale.ticks() == ["far", "near"]


def test_the_same_distance_has_the_same_colour_and_the_legend_counts_in_metres() -> None:
    near, far = (Maps(Quantity.METRES, values / FLOOR) for values in (1.0, 2.0))
    scale = common_scale([near, far])
    pictures = scale.pictures()
    # 1 / FLOOR of the one is 2 / FLOOR of the other where FLOOR is twice as large.
    row, other = 9, int(np.argmin(np.abs(FLOOR[:, 0] - 2 * FLOOR[9, 0])))
    assert np.abs(pictures[0][row].astype(int) - pictures[1][other]).max() <= 30
    assert not np.array_equal(pictures[0], pictures[1])
    ticks = [float(each.removesuffix(" m")) for each in scale.ticks()]
    # 1 / metres goes from 0.05 to 1; one per cent of all pixels lies beyond each end.
    assert ticks[0] == pytest.approx(20, rel=0.2) and ticks[-1] == pytest.approx(1, rel=0.1)
    assert 1 / ticks[2] == pytest.approx((1 / ticks[0] + 1 / ticks[-1]) / 2, rel=0.02)


def test_a_flat_map_is_no_division_by_zero() -> None:
    scale = common_scale([Maps(Quantity.DISPARITY, np.ones((4, 5), np.float32)), Maps(Quantity.DISPARITY, FLOOR)])
    assert np.isfinite(scale.maps[0]).all() and np.isfinite([scale.low, scale.high]).all()


def test_points_lie_where_the_camera_saw_them() -> None:
    metres = np.full((300, 400), 2.0, np.float32)
    rgb = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    focal, every = focal_for(rgb.shape), stride(rgb.shape)
    positions, colours = points(rgb, metres, focal)
    at = positions.reshape(math.ceil(300 / every), math.ceil(400 / every), 3)[5, 7]
    expected = [(7 * every + 0.5 - 200) / focal * 2, (5 * every + 0.5 - 150) / focal * 2, 2.0]
    assert at == pytest.approx(expected, rel=1e-6)
    assert np.array_equal(colours.reshape(*positions.shape), rgb[::every, ::every].reshape(-1, 3))
    # 400 pixels are 60 degrees: the left edge of the photograph is 30 degrees off its axis.
    assert math.degrees(math.atan(200 / focal)) == pytest.approx(30)


def test_normals_are_shown_as_they_look_and_without_a_legend_of_distances() -> None:
    facing = np.zeros((3, 12, 16), np.float32)
    facing[2] = 1
    rgb = np.zeros((12, 16, 3), np.uint8)
    answers = {
        "surfaces": Answer(Prediction(rgb, Maps(Quantity.NORMALS, facing))),
        "depth": Answer(Prediction(rgb, Maps(Quantity.DISPARITY, FLOOR[:12, :16]))),
    }
    shown = [Shown(name, answer, "", 0.1, False, "1 MB") for name, answer in answers.items()]
    alone, both = page_of(shown[:1]), page_of(shown)
    assert "surfaces, normals" in alone and alone.count("<img") == 2 and "legend" not in alone
    assert both.count("<img") == 3 and "legend" in both
    assert answers["surfaces"].pictures()[Quantity.NORMALS][0, 0].tolist() == [128, 128, 255]


def test_a_model_that_fails_does_not_take_the_others_away(tmp_path: Path) -> None:
    models = Models({"whole": save_directory(build("vitn"), tmp_path / "whole"), "broken": tmp_path / "broken"})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model.safetensors").write_bytes(b"no weights")
    photograph = tmp_path / "a.png"
    photograph.write_bytes((Path(__file__).parents[2] / "docs/sample.jpg").read_bytes())
    shown = [models.predict(name, photograph) for name in ("whole", "broken", "whole")]
    assert [each.first for each in shown] == [True, False, False]
    page = page_of(shown[:2])
    assert page.count("<img") == 2 and "broken" in page and shown[1].problem
    with pytest.raises(ValueError, match="broken: "):
        page_of(shown[1:2])
