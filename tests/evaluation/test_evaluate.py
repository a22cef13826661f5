"""Scoring a model end to end on real shards, and what happens when something is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dav2 import layout
from dav2.data.frame import Frame
from dav2.data.store.manifest import read_manifest
from dav2.documents import ScoreFile
from dav2.evaluation.evaluate import EvaluationError, evaluate_model
from dav2.evaluation.passes import input_crop
from dav2.evaluation.predictors import open_predictor
from dav2.evaluation.stream import limit_side, predict_rows
from dav2.families.depth_anything.family import DepthPredictor
from dav2.families.depth_anything.foreign import save_hugging_face
from dav2.families.loading import load
from dav2.scores.protocols import PROTOCOLS
from tests.evaluation.conftest import da2k_frames, tiny_params, write_shards


def _scores(root: Path, model: str, **keywords: Any) -> dict[str, Any]:
    evaluate_model(model, tiny_params(), root, **keywords)
    return ScoreFile.read(layout.scores(root, model)).model_dump()


def test_the_row_baseline_is_right_where_lower_means_nearer(project: Path) -> None:
    scores = _scores(project, "baseline-row")
    assert scores["da2k"]["accuracy"] == 1.0
    assert scores["da2k"]["pairs"] == 12
    assert {kind: values["pairs"] for kind, values in scores["da2k"]["kinds"].items()} == {
        "aerial": 4,
        "indoor": 4,
        "outdoor": 4,
    }
    assert set(scores["benchmarks"]) == {"nyu", "edges", "middlebury"}
    assert scores["latency_ms"] is None


def test_a_constant_prediction_ties_everywhere_and_scores_nothing(project: Path) -> None:
    da2k = _scores(project, "baseline-constant")["da2k"]
    assert (da2k["accuracy"], da2k["ties"], da2k["high"]) == (0.0, 12, 0.0)


def test_a_model_is_scored_as_predicting_image_by_image_would(project: Path) -> None:
    scores = _scores(project, "student-vitn")
    model = load(project / "artifacts" / "models" / "student-vitn")
    for frame, image in zip(
        da2k_frames(), sorted(scores["da2k"]["per_image"], key=lambda i: i["key"][-1]), strict=True
    ):
        disparity = model.infer_image(frame.rgb)
        expected = ""
        for pair in frame.extra["pairs"]:
            near, far = (pair["point1"], pair["point2"]) if pair["closer"] == 1 else (pair["point2"], pair["point1"])
            expected += str(int(disparity[tuple(near)] > disparity[tuple(far)]))
        assert (image["key"], image["outcomes"]) == (frame.key, expected)
    assert scores["weights_sha256"]
    assert scores["latency_ms"] > 0
    assert 0 < scores["forward_share"] <= 1


def test_a_metric_model_is_scored_in_metres_and_its_depth_is_turned_for_da2k(project: Path) -> None:
    scores = _scores(project, "metric-indoor")
    assert list(scores["benchmarks"]) == ["nyu-metric"]
    metrics = scores["benchmarks"]["nyu-metric"]
    assert metrics["protocol"] == "metric-nyu"
    assert metrics["protocol_hash"] == PROTOCOLS["metric-nyu"].digest()
    assert (metrics["frames"], metrics["scored"], metrics["expected"]) == (3, 3, 654)
    frame = da2k_frames(1)[0]
    depth = load(project / "artifacts" / "models" / "metric-indoor").infer_image(frame.rgb)
    pair = frame.extra["pairs"][0]
    first = next(i for i in scores["da2k"]["per_image"] if i["key"] == frame.key)["outcomes"][0]
    assert first == str(int(depth[tuple(pair["point1"])] < depth[tuple(pair["point2"])]))


def test_progress_counts_every_frame_of_every_pass(project: Path) -> None:
    seen: list[tuple[int, int]] = []
    params = tiny_params(robustness=["blur", "fog"], resolutions=[2.0])
    result = evaluate_model("teacher", params, project, lambda done, total: seen.append((done, total)))
    assert seen[0] == (1, 6 * 4 + 3 + 3 + 1)
    assert seen[-1] == (31, 31)
    assert set(result.robustness) == {"blur", "fog"}
    assert set(result.resolution) == {"2"}


def test_variants_are_left_to_relative_models(project: Path) -> None:
    params = tiny_params(robustness=["blur"], resolutions=[2.0])
    for model in ("metric-indoor", "baseline-brightness"):
        result = evaluate_model(model, params, project, benchmarks=["da2k"])
        assert result.robustness == result.resolution == {}


def test_batches_and_threads_do_not_change_a_prediction(project: Path) -> None:
    predictor = open_predictor("teacher", project)
    folder = project / "artifacts" / "shards" / "benchmark" / "da2k"
    rows = read_manifest(folder).to_dict("records")
    one = {read.key: tensor for read, tensor in predict_rows(folder, rows, predictor, batch=1, workers=1)}
    many = {read.key: tensor for read, tensor in predict_rows(folder, rows, predictor, batch=4, workers=3)}
    assert one.keys() == many.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, many[key], rtol=1e-4, atol=1e-5)


def test_unusable_annotations_are_counted_and_named(project: Path) -> None:
    frames = da2k_frames(2)
    frames[0].extra["pairs"].append({"point1": [500, 1], "point2": [1, 1], "closer": 1})
    frames[1].extra["pairs"].append({"point1": [1, 1], "point2": [1, 1], "closer": 1})
    write_shards(project / "artifacts" / "shards" / "benchmark" / "da2k", frames, "benchmark")
    da2k = _scores(project, "baseline-row")["da2k"]
    assert da2k["problems"] == {"equal points": 1, "point outside the image": 1}
    assert da2k["pairs"] == 4
    assert "[500, 1] lies outside the 60 × 80 image" in da2k["problem_list"][0]["detail"]


def test_an_image_that_cannot_be_read_is_named_not_averaged(project: Path) -> None:
    shard = project / "artifacts" / "shards" / "benchmark" / "nyu" / "test-000000.tar"
    row = read_manifest(shard.parent).to_dict("records")[1]
    data = bytearray(shard.read_bytes())
    data[row["offset_image"] + 200] ^= 0xFF
    shard.write_bytes(bytes(data))
    nyu = _scores(project, "baseline-row")["benchmarks"]["nyu"]
    assert nyu["problems"] == {"frame cannot be read": [row["key"]]}
    assert (nyu["frames"], nyu["scored"]) == (3, 2)
    assert nyu["metrics"]["abs_rel"] is not None


def test_a_prediction_that_is_not_finite_voids_the_mean(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = DepthPredictor.predict

    def spoiled(self: DepthPredictor, batch: torch.Tensor) -> torch.Tensor:
        prediction = forward(self, batch).clone()
        prediction[0, 3, 3] = float("nan")
        return prediction

    monkeypatch.setattr(DepthPredictor, "predict", spoiled)
    nyu = _scores(project, "teacher")["benchmarks"]["nyu"]
    assert set(nyu["problems"]) == {"prediction is not finite"}
    assert nyu["metrics"]["abs_rel"] is None


@pytest.mark.parametrize(
    ("model", "benchmarks", "message"),
    [
        ("student-x", None, "no model 'student-x': it is neither a run in artifacts/models"),
        ("baseline-x", None, "no baseline 'baseline-x'"),
        ("teacher", ["sintel"], "no benchmark 'sintel'"),
    ],
)
def test_a_wrong_name_is_refused_with_those_there_are(
    project: Path, model: str, benchmarks: list[str] | None, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_model(model, tiny_params(), project, benchmarks=benchmarks)


def test_a_benchmark_that_was_not_ingested_says_what_to_run(project: Path) -> None:
    (project / "artifacts" / "shards" / "benchmark" / "da2k" / "manifest.parquet").unlink()
    with pytest.raises(EvaluationError, match="dvc repro"):
        evaluate_model("teacher", tiny_params(), project)


def test_a_relative_model_under_a_metric_protocol_is_refused(project: Path) -> None:
    with pytest.raises(EvaluationError, match="measures metres; the model predicts relative disparity"):
        evaluate_model("teacher", tiny_params(), project, benchmarks=["nyu-metric"])


def test_the_kitti_crop_keeps_the_bottom_centre_and_leaves_small_images_whole() -> None:
    protocol = PROTOCOLS["metric-kitti"]
    rgb = np.zeros((375, 1242, 3), np.uint8)
    depth = np.arange(1, 375 * 1242 + 1, dtype=np.float32).reshape(375, 1242)
    cut = input_crop(Frame("kitti/drive/f", rgb, depth), protocol)
    assert cut.depth is not None
    np.testing.assert_array_equal(cut.depth, depth[375 - 352 :, 13 : 13 + 1216])
    small = Frame("kitti/drive/f", rgb[:100], depth[:100])
    assert input_crop(small, protocol) is small


def test_images_are_reduced_to_the_longest_side_a_protocol_names() -> None:
    assert limit_side(np.zeros((300, 1000, 3), np.uint8), 500).shape == (150, 500, 3)
    small = np.zeros((30, 40, 3), np.uint8)
    assert limit_side(small, 500) is small


def test_a_hugging_face_folder_is_scored_under_its_whole_name(project: Path) -> None:
    from transformers import DepthAnythingForDepthEstimation

    model = load(project / "artifacts" / "models" / "teacher", "cpu", "fp32")
    save_hugging_face(model, project / "depth-v2.1-hf")
    DepthAnythingForDepthEstimation.from_pretrained(project / "depth-v2.1-hf")
    theirs = _scores(project, "depth-v2.1-hf")
    ours = _scores(project, "teacher")
    assert theirs["da2k"]["per_image"] == ours["da2k"]["per_image"]
    for name, entry in ours["benchmarks"].items():
        assert theirs["benchmarks"][name]["metrics"] == pytest.approx(entry["metrics"], rel=1e-6), name
