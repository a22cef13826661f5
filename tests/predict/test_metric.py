"""Metres by known depths and by a metric model: closed forms, wrong depths, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from dav2.cli import build as command_line
from dav2.data.images import encode_jpeg
from dav2.maps import Maps, Quantity
from dav2.predict.metric import from_map, from_points, read_known
from dav2.predict.robust import line
from tests.families.marigold.builders import photograph

Map = NDArray[np.float32]
RELATIVE = (Quantity.DISPARITY, Quantity.LOG_DEPTH, Quantity.DEPTH)


def scene() -> Map:
    """Metres (24, 32) from 1 to 9."""
    y, x = np.mgrid[0:24, 0:32]
    return (1 + 6 * y / 23 + 2 * np.abs(np.sin(x / 4))).astype(np.float32)


def hidden(metres: Map, quantity: Quantity) -> Maps[Map]:
    """A map of a quantity of which scale and shift are lost; of metres, a factor."""
    spaces = {Quantity.DISPARITY: 1 / metres, Quantity.LOG_DEPTH: np.log(metres)}
    if quantity is Quantity.METRES:
        return Maps(quantity, metres * np.float32(0.4))
    return Maps(quantity, (spaces.get(quantity, metres) * 3.0 - 0.7).astype(np.float32))


def some(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 24, count), rng.integers(0, 32, count)


@pytest.mark.parametrize("quantity", [*RELATIVE, Quantity.METRES])
def test_known_depths_give_back_metres_though_four_in_ten_are_wrong(quantity: Quantity) -> None:
    metres, places = scene(), some(200)
    known = metres[places].copy()
    known[::5] *= np.float32(3)
    known[1::5] = np.float32(0.9)
    found, remark = from_points(hidden(metres, quantity), places, known)
    assert found.quantity is Quantity.METRES and found.values.dtype == np.float32 and not remark
    assert np.allclose(found.values, metres, rtol=1e-3)


def test_noise_of_all_depths_is_averaged() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, 4000)
    found = line(x, 2 * x + 0.5 + rng.normal(0, 0.1, len(x)))
    assert found is not None and abs(found.scale - 2) < 0.03 and abs(found.shift - 0.5) < 0.02 and found.agree > 0.95


@pytest.mark.parametrize("quantity", RELATIVE)
def test_a_metric_map_gives_back_metres_in_closed_form(quantity: Quantity) -> None:
    found = from_map(hidden(scene(), quantity), scene())
    assert found.quantity is Quantity.METRES and np.allclose(found.values, scene(), rtol=1e-4)


def test_uncertainty_becomes_metres_to_first_order_and_far_things_stay_within_bounds() -> None:
    metres = scene()
    lost = hidden(metres, Quantity.DISPARITY)
    spread = np.full_like(metres, 1e-4)
    values = lost.values.copy()
    values[0, 0] = -5  # behind everything
    found, _ = from_points(Maps(lost.quantity, values, spread), some(60), metres[some(60)])
    assert found.uncertainty is not None
    assert np.allclose(found.uncertainty[1:], 1e-4 / 3 * metres[1:] ** 2, rtol=1e-2)
    assert found.values[0, 0] == pytest.approx(10 * metres[some(60)].max(), rel=1e-5)


def test_few_and_degenerate_depths_are_said() -> None:
    metres = scene()
    lost = hidden(metres, Quantity.DISPARITY)
    two = (np.array([0, 23]), np.array([0, 0]))
    found, remark = from_points(lost, two, metres[two])
    assert np.allclose(found.values, metres, rtol=1e-3) and remark == "metres rest on 2 known depths"
    one = (np.array([3]), np.array([3]))
    with pytest.raises(ValueError, match="one known depth says no scale"):
        from_points(lost, one, metres[one])
    assert np.allclose(from_points(hidden(metres, Quantity.METRES), one, metres[one])[0].values, metres, rtol=1e-5)
    with pytest.raises(ValueError, match="same at all known depths"):
        from_points(Maps(Quantity.DISPARITY, np.ones_like(metres)), two, metres[two])
    with pytest.raises(ValueError, match="contradict the map"):
        from_points(Maps(Quantity.DISPARITY, -lost.values), some(50), metres[some(50)])
    with pytest.raises(ValueError, match="predicts metres already"):
        from_map(Maps(Quantity.METRES, metres), metres)


def run(*arguments: str | Path) -> tuple[int, str]:
    given = ["predict", *map(str, arguments), "--dtype", "fp32", "--device", "cpu", "--size", "56"]
    result = CliRunner(env={"COLUMNS": "400"}).invoke(command_line("predict"), given)
    return result.exit_code, result.output


def test_the_command_reads_known_depths_and_writes_metres_and_points(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(photograph(60, 84), 95))
    code, said = run(tmp_path / "a.jpg", "-m", models / "relative", "-o", tmp_path / "plain", "--save", "npy")
    assert code == 0, said
    disparity = np.load(tmp_path / "plain" / "a_depth.npy")
    metres = 1 / (disparity / np.ptp(disparity) + 0.5 - disparity.min() / np.ptp(disparity))
    known = np.zeros((60, 84), np.uint16)
    known[5::10, 3::10] = (metres * 1000).round()[5::10, 3::10]
    cv2.imwrite(str(tmp_path / "known.png"), known)
    more = ("--save", "npy,ply", "--focal", "80")
    code, said = run(
        tmp_path / "a.jpg", "-m", models / "relative", "-o", tmp_path / "out", *more, "--sparse", tmp_path / "known.png"
    )
    assert code == 0, said
    assert (
        np.allclose(np.load(tmp_path / "out" / "a_depth.npy"), metres, rtol=2e-3) and (tmp_path / "out/a.ply").exists()
    )
    code, said = run(
        tmp_path / "a.jpg", "-m", models / "relative", "-o", tmp_path / "by", *more, "--metric-from", models / "metric"
    )
    # Random weights may contradict each other, which is said; otherwise there are metres.
    assert (code == 0 and np.load(tmp_path / "by" / "a_depth.npy").min() > 0) or "contradicts the map" in said


def test_known_depths_that_cannot_be_used_are_named(models: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(photograph(60, 84), 95))
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "none.npy", np.zeros((60, 84), np.float32))
    np.save(tmp_path / "narrow.npy", np.ones((60, 30), np.float32))
    cv2.imwrite(str(tmp_path / "grey.png"), np.ones((60, 84), np.uint8))
    np.save(tmp_path / "minus.npy", np.full((60, 84), -1, np.float32))
    said = {
        "none.npy": "no depth is known at any pixel",
        "narrow.npy": "both need one aspect",
        "grey.png": "8 bits a pixel",
        "minus.npy": "negative depths",
        "empty": "no known depths of it in",
    }
    for name, message in said.items():
        code, output = run(
            tmp_path / "a.jpg", "-m", models / "relative", "-o", tmp_path / "o", "--sparse", tmp_path / name
        )
        assert code == 1 and message in output, (name, output)
    code, output = run(tmp_path / "a.jpg", "-m", models / "relative", "--sparse", tmp_path / "missing.npy")
    assert code == 2 and "no known depths at" in output
    both = ("--sparse", tmp_path / "none.npy", "--metric-from", models / "metric")
    code, output = run(tmp_path / "a.jpg", "-m", models / "relative", *both)
    assert code == 2 and "not from both" in output
    code, output = run(tmp_path / "a.jpg", "-m", models / "relative", "--metric-from", models / "relative")
    assert code == 2 and "needs a metric model" in output


def test_millimetres_and_metres_are_read_and_zero_is_unknown(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 1500], [65535, 1]], np.uint16))
    np.save(tmp_path / "a.npy", np.array([[0, 1.5], [np.inf, np.nan]]))
    assert np.allclose(read_known(tmp_path / "a.png"), [[np.nan, 1.5], [65.535, 0.001]], equal_nan=True)
    assert np.allclose(read_known(tmp_path / "a.npy"), [[np.nan, 1.5], [np.nan, np.nan]], equal_nan=True)
