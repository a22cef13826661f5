"""Benchmarks of normals, appearance and light: scored like those of depth, with intervals and trivial baselines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dav2.cli import build
from dav2.data.frame import Frame
from dav2.documents import ScoreFile
from dav2.evaluation.evaluate import EvaluationError, evaluate_model
from dav2.maps import LAYERS
from dav2.params import Params
from dav2.report import write_report
from tests.data.test_layers import shards_of
from tests.evaluation.conftest import slope, tiny_params

BENCHMARKS = {
    "normals": {"source": "kitti", "protocol": "normals-plain"},
    "appearance": {"source": "kitti", "protocol": "appearance-plain"},
    "lighting": {"source": "kitti", "protocol": "lighting-plain"},
    "nyu": {"source": "nyu", "protocol": "da-v2-nyu"},
}


def room(number: int) -> Frame:
    """Walls that lean a little, grey paint in coloured light, some pixels unknown."""
    rgb, depth = slope(48, 64, number)
    rng = np.random.default_rng(number)
    normals = np.dstack([rng.normal(0, 0.2, (48, 64)), rng.normal(0, 0.2, (48, 64)), np.ones((48, 64))])
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    values = {
        "normals": normals,
        "albedo": (rgb / 255.0) ** 2.2 * 0.9 + 0.05,
        "shading": rng.uniform(1, 3, (48, 64, 3)),
        "residual": np.where(rng.random((48, 64, 3)) > 0.95, 0.5, 0.0),
        "roughness": rng.uniform(0.4, 0.6, (48, 64)),
        "metallicity": np.zeros((48, 64)),
    }
    layers = {name: each.astype(np.float32) for name, each in values.items()}
    for each in layers.values():
        each[:3] = np.nan
    return Frame(f"made/rooms/f{number}", rgb, depth, **layers)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def judged(built: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    """The tiny project with a benchmark of layers, under the name of one that it does without."""
    root = Path(shutil.copytree(built, tmp_path_factory.mktemp("layers") / "project"))
    params = tiny_params(benchmarks=BENCHMARKS)
    shards_of([room(number) for number in range(5)], root / params.shards("kitti"))
    return params, root


def score(judged: tuple[Params, Path], model: str, **options: Any) -> ScoreFile:
    return evaluate_model(model, *judged, **options)


def test_each_baseline_is_scored_on_what_it_predicts(judged: tuple[Params, Path]) -> None:
    facing = score(judged, "baseline-facing")
    assert list(facing.benchmarks) == ["normals"] and facing.da2k is None and facing.quantity == "normals"
    entry = facing.benchmarks["normals"]
    assert entry.scored == 5 and not entry.problems
    truth = [room(number).normals[3:] for number in range(5)]
    expected = np.mean([np.degrees(np.arccos(each[..., 2].clip(-1, 1).astype(float))).mean() for each in truth])
    assert entry.metrics["mean"] == pytest.approx(expected, abs=5e-3)
    low, high = entry.intervals["mean"]
    assert low < entry.metrics["mean"] < high
    picture = score(judged, "baseline-picture")
    assert list(picture.benchmarks) == ["appearance", "lighting"]
    found = picture.benchmarks["lighting"].metrics
    assert found["albedo_psnr"] > score(judged, "baseline-grey").benchmarks["lighting"].metrics["albedo_psnr"]
    assert set(found) >= {"shading_psnr", "shading_ssim", "residual_psnr", "recomposition_psnr"}
    assert picture.benchmarks["lighting"].intervals.keys() == found.keys()
    assert list(score(judged, "baseline-row").benchmarks) == ["nyu"], "depth is not judged by its layers"


def test_frames_without_a_layer_are_named(judged: tuple[Params, Path]) -> None:
    params = tiny_params(benchmarks={"normals": {"source": "nyu", "protocol": "normals-plain"}})
    result = evaluate_model("baseline-facing", params, judged[1])
    entry = result.benchmarks["normals"]
    assert entry.scored == 0 and entry.metrics == {} and len(entry.problems["frame lacks a layer"]) == 3


def test_a_benchmark_of_something_else_is_refused_by_name(judged: tuple[Params, Path]) -> None:
    with pytest.raises(EvaluationError, match="benchmark 'normals' judges normals; the model predicts disparity"):
        score(judged, "baseline-row", benchmarks=["normals"])
    with pytest.raises(EvaluationError, match="benchmark 'nyu' judges depth; the model predicts normals"):
        score(judged, "baseline-facing", benchmarks=["nyu"])
    with pytest.raises(EvaluationError, match=r"there are: baseline-constant, .*baseline-facing"):
        score(judged, "baseline-everything")


def test_the_page_shows_them(judged: tuple[Params, Path]) -> None:
    params, root = judged
    for model in ("baseline-row", "baseline-facing", "baseline-picture", "baseline-grey"):
        evaluate_model(model, params, root)
    page = write_report(params, root, root / "reports").read_text(encoding="utf-8")
    assert "angle, mean ↓" in page and "recomposition PSNR ↑" in page and "baseline-facing" in page


def test_the_console_shows_angles_and_decibels(judged: tuple[Params, Path], tmp_path: Path) -> None:
    settings = tmp_path / "params.yaml"
    settings.write_text(yaml.safe_dump(judged[0].model_dump(mode="json", by_alias=True)))
    arguments = ["evaluate", "baseline-facing", "baseline-picture", "--params", str(settings), "--root", str(judged[1])]
    result = CliRunner(env={"COLUMNS": "250"}).invoke(build("evaluate"), arguments)
    assert result.exit_code == 0, result.output
    assert "mean° 1" in result.output and "PSNR albedo" in result.output and "void" not in result.output


def test_all_layers_are_judged_somewhere() -> None:
    from dav2.scores.layer_protocols import LAYER_PROTOCOLS

    assert {quantity for each in LAYER_PROTOCOLS.values() for quantity in each.quantities} == set(LAYERS)
