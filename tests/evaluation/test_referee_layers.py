"""Normals and layers of appearance and light that any program made are scored as a model's would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dav2 import layout
from dav2.data.frame import FrameError
from dav2.documents import ScoreFile
from dav2.evaluation import layer_maps
from dav2.evaluation.compare import compare
from dav2.evaluation.evaluate import EvaluationError, beaten_baselines, evaluate_model
from dav2.evaluation.referee import Predictions, evaluate_maps, write_images
from dav2.maps import Quantity
from dav2.params import Params
from dav2.scenes.layouts.files import write_exr
from dav2.scores.scoring import NO_MAP, UNREADABLE_MAP
from tests.data.test_layers import shards_of
from tests.evaluation.conftest import tiny_params
from tests.evaluation.test_layers import BENCHMARKS, room

COUNT = 3
Write = Callable[[Path, np.ndarray], Any]


def png(path: Path, values: np.ndarray, full: int = 65535, low: float = 0.0) -> None:
    codes = np.rint((values - low) / (1 - low) * full).astype(np.uint16 if full > 255 else np.uint8)
    cv2.imwrite(f"{path}.png", codes[..., ::-1])


FORMATS: dict[str, tuple[Write, float]] = {
    "npy": (lambda path, values: np.save(path, values), 1e-3),
    "channels first": (lambda path, values: np.save(path, values.transpose(2, 0, 1)), 1e-3),
    "exr": (
        lambda path, values: write_exr(
            path.with_name(f"{path.name}.exr"), {c: values[..., at] for at, c in enumerate("RGB")}
        ),
        0.1,
    ),
    "png16": (lambda path, values: png(path, values, low=-1.0), 0.01),
    "png8": (lambda path, values: png(path, values, 255, -1.0), 0.5),
}
"""How a file is written, and the degrees that are lost."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    root, params = tmp_path_factory.mktemp("judged"), tiny_params(benchmarks=BENCHMARKS)
    shards_of([room(number) for number in range(COUNT)], root / params.shards("kitti"))
    return params, root


def truth(number: int, layer: str = "normals") -> np.ndarray:
    values = getattr(room(number), layer)
    nothing = np.array([0, 0, 1], np.float32) if layer == "normals" else np.float32(0.5)
    return np.where(np.isnan(values), nothing, values).astype(np.float32)


def folder(tmp_path: Path, write: Write, values: Callable[[int], np.ndarray], name: str = "f{}_normals") -> Path:
    made = tmp_path / "maps" / "rooms"
    made.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        write(made / name.format(number), values(number))
    return tmp_path / "maps"


def judge(judged: tuple[Params, Path], maps: Path, quantity: str, **changes: Any) -> ScoreFile:
    return evaluate_maps(Predictions(maps, quantity, "theirs", **changes), *judged)


@pytest.mark.parametrize("kind", FORMATS)
def test_true_normals_are_right_in_every_format(judged: tuple[Params, Path], tmp_path: Path, kind: str) -> None:
    write, lost = FORMATS[kind]
    maps = folder(tmp_path, write, truth)
    np.save(maps / "rooms" / "f0_albedo.npy", truth(0, "albedo"))
    result = judge(judged, maps, "normals")
    entry = result.benchmarks["normals"]
    assert list(result.benchmarks) == ["normals"] and entry.scored == COUNT and not entry.problems
    assert (entry.metrics["mean"] or 0.0) <= lost
    assert result.maps is not None and result.maps.surplus == ["rooms/f0_albedo.npy"]
    facing = evaluate_model("baseline-facing", *judged).benchmarks["normals"]
    assert facing.protocol_hash == entry.protocol_hash, "the same rules as for models"
    rows, notes = compare(result, evaluate_model("baseline-facing", *judged))
    assert [(row.metric, row.better) for row in rows] == [("mean", 1)] and not notes


def test_the_picture_taken_for_albedo_scores_what_the_baseline_does(
    judged: tuple[Params, Path], tmp_path: Path
) -> None:
    maps = tmp_path / "pictures"
    assert write_images(judged[0], judged[1], maps, ["lighting"]) == COUNT
    result = judge(judged, maps, "albedo", gamma_coded=True)
    assert list(result.benchmarks) == ["appearance", "lighting"], "albedo alone, of what they judge"
    baseline = evaluate_model("baseline-picture", *judged)
    for name, entry in result.benchmarks.items():
        assert entry.metrics.keys() == {"albedo_psnr", "albedo_ssim"}
        expected = baseline.benchmarks[name].metrics["albedo_psnr"]
        assert entry.metrics["albedo_psnr"] == pytest.approx(expected, abs=1e-4)
        assert entry.protocol_hash != baseline.benchmarks[name].protocol_hash
    assert judge(judged, maps, "albedo").benchmarks["lighting"].metrics != result.benchmarks["lighting"].metrics
    with pytest.raises(EvaluationError, match="--gamma-coded: normals is no colour"):
        judge(judged, maps, "normals", gamma_coded=True)


def test_missing_and_bad_maps_are_named(judged: tuple[Params, Path], tmp_path: Path) -> None:
    maps = folder(tmp_path, np.save, lambda n: -truth(n) if n == 1 else truth(n))
    (maps / "rooms" / "f2_normals.npy").unlink()
    with pytest.raises(EvaluationError, match="1 of 3 images of normals have no map"):
        judge(judged, maps, "normals")
    result = judge(judged, maps, "normals", allow_missing=0.7)
    entry = result.benchmarks["normals"]
    assert entry.scored == 1 and {key: len(each) for key, each in entry.problems.items()} == {
        NO_MAP: 1, UNREADABLE_MAP: 1,
    }  # fmt: skip
    assert result.maps is not None
    assert "100 % of the normals face away" in result.maps.unreadable["rooms/f1_normals.npy"]


@pytest.mark.parametrize(
    ("quantity", "values", "message"),
    [
        (Quantity.NORMALS, np.zeros((3, 4, 5)), "vectors of length 0 "),
        (Quantity.NORMALS, np.full((3, 4, 5), 128.0), "vectors of length 222"),
        (Quantity.ALBEDO, np.full((3, 4, 5), 1.5), "values from 1.5 to 1.5; albedo is within 0 and 1"),
        (Quantity.SHADING, np.full((3, 4, 5), -0.5), "shading is not below 0"),
    ],
)
def test_values_that_no_layer_has_are_refused(quantity: Quantity, values: np.ndarray, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        layer_maps.sound(values.astype(np.float32), "a.npy", quantity)


def test_normals_are_unit_vectors_after_a_resize() -> None:
    small = np.stack([truth(0)[::4, ::4, at] for at in range(3)])
    large = layer_maps.resized(small, (48, 64), Quantity.NORMALS)
    assert large.shape == (3, 48, 64) and np.abs(np.linalg.norm(large, axis=0) - 1).max() < 1e-5


def test_another_shape_says_what_is_asked(judged: tuple[Params, Path], tmp_path: Path) -> None:
    maps = folder(tmp_path, np.save, lambda n: truth(n)[..., 0])
    with pytest.raises(EvaluationError, match=r"has the shape \(48, 64\); normals has \(height, width, 3\)"):
        judge(judged, maps, "normals")


def test_baselines_that_must_be_beaten_are_scored_once(judged: tuple[Params, Path], tmp_path: Path) -> None:
    params, root = judged
    theirs = judge(judged, folder(tmp_path, np.save, truth), "normals")
    layout.scores(root, "baseline-facing").unlink(missing_ok=True)
    assert beaten_baselines(theirs, params, root) == ["baseline-facing"]
    evaluate_model("baseline-facing", params, root)
    assert beaten_baselines(theirs, params, root) == []
    older = theirs.benchmarks["normals"].model_copy(update={"data": "older"})
    renewed = theirs.model_copy(update={"benchmarks": {"normals": older}})
    assert beaten_baselines(renewed, params, root) == ["baseline-facing"], "the data changed"
    assert beaten_baselines(evaluate_model("baseline-facing", params, root, benchmarks=[]), params, root) == []
