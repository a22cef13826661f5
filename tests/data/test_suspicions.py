"""Nothing is said of the sample's own data; each way of damaging it is told, and told as what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dav2.data.frame import Frame
from dav2.data.raw.sources import open_source
from dav2.data.raw.suspicions import Suspicions

DATA = Path(__file__).parents[2] / "data"
METRIC = ["hypersim", "vkitti2", "tartanair", "irs"]
SETS = [*METRIC, "blendedmvs", "nyu", "kitti", "middlebury"]


@pytest.fixture(scope="module")
def frames() -> dict[str, list[Frame]]:
    """Twelve frames of each data set, evenly spread."""
    found = {}
    for name in SETS:
        source = open_source(name, DATA / name, name)
        items = source.index()
        found[name] = [source.read(items[n]) for n in np.unique(np.linspace(0, len(items) - 1, 12).astype(int))]
    return found


def said(frames: list[Frame], change: Callable[[NDArray[np.float32]], NDArray[Any]] | None = None) -> list[str]:
    looked = Suspicions()
    for frame in frames:
        assert frame.depth is not None
        depth = frame.depth if change is None else change(frame.depth).astype(np.float32)
        looked.add(replace(frame, depth=depth))
    return looked.said()


def moved(right: float, down: float) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    return lambda depth: np.roll(depth, (round(down * depth.shape[0]), round(right * depth.shape[1])), (0, 1))


def zoomed(scale: float) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    def change(depth: NDArray[np.float32]) -> NDArray[Any]:
        height, width = depth.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), 0, scale)
        options = {"flags": cv2.INTER_NEAREST, "borderValue": float("nan")}
        return np.asarray(cv2.warpAffine(depth, matrix, (width, height), **options))  # type: ignore[call-overload]

    return change


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_said_of_sound_data(frames: dict[str, list[Frame]], name: str) -> None:
    assert said(frames[name]) == []


@pytest.mark.parametrize("name", METRIC)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda depth: depth * 1000, "are these millimetres"),
        (lambda depth: depth / 1000, "the unit is too small"),
        (lambda depth: np.where(np.isinf(depth), np.nan, 1 / depth), "is this disparity"),
        (moved(0.08, 0), "moved by 7.8% of the width to the left"),
        (moved(0, 0.06), "% of the height to the top"),
        (lambda depth: depth[:, ::-1], "depth is mirrored"),
        (lambda depth: depth[::-1], "depth is upside down"),
        (zoomed(1.25), "depth is enlarged 0.8 times"),
    ],
)
def test_each_kind_of_damage_is_told(
    frames: dict[str, list[Frame]], name: str, change: Callable[[NDArray[np.float32]], NDArray[Any]], expected: str
) -> None:
    (sentence,) = said(frames[name], change)
    assert expected in sentence


def test_a_square_map_with_rows_for_columns_is_told(frames: dict[str, list[Frame]]) -> None:
    looked = Suspicions()
    for frame in frames["hypersim"]:
        assert frame.depth is not None
        side = min(frame.depth.shape)
        looked.add(replace(frame, rgb=frame.rgb[:side, :side], depth=frame.depth[:side, :side].T.copy(), jpeg=None))
    assert any("transposed" in sentence for sentence in looked.said())


def test_a_few_frames_say_nothing(frames: dict[str, list[Frame]]) -> None:
    assert said(frames["hypersim"][:4], lambda depth: depth * 1000) == []
