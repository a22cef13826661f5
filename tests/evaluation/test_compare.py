"""Comparisons are paired, only of like with like, and say when nothing can be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dav2.documents import ScoreFile
from dav2.evaluation.compare import compare


def _scores(model: str, outcomes: list[str], errors: list[float], data: str = "n", protocol: str = "h") -> ScoreFile:
    keys = [f"k{n}" for n in range(len(outcomes))]
    frames = {"keys": keys, "abs_rel": errors, "delta1": [1 - error for error in errors]}
    per_image = [{"key": k, "kind": "indoor", "outcomes": o} for k, o in zip(keys, outcomes, strict=True)]
    benchmarks = {"nyu": {"data": data, "protocol_hash": protocol, "per_frame": frames}}
    return ScoreFile.model_validate(
        {"model": model, "da2k": {"data": "d", "per_image": per_image}, "benchmarks": benchmarks}
    )


def _bad(**changes: str) -> ScoreFile:
    return _scores("bad", ["100", "110", "011"] * 10, [0.15 + 0.001 * n for n in range(30)], **changes)


GOOD = _scores("good", ["111"] * 30, [0.05 + 0.001 * n for n in range(30)])
BAD = _bad()


def test_a_clear_improvement_is_better_whichever_way_the_metric_runs() -> None:
    rows, notes = compare(GOOD, BAD)
    assert notes == []
    assert {(row.benchmark, row.metric): row.better for row in rows} == {
        ("da2k", "accuracy"): 1,
        ("nyu", "abs_rel"): 1,
        ("nyu", "delta1"): 1,
    }
    assert {row.better for row in compare(BAD, GOOD)[0]} == {-1}
    assert rows[0].score == 1.0
    assert rows[0].reference_score == pytest.approx(5 / 9)


def test_equal_models_are_not_told_apart() -> None:
    assert {row.better for row in compare(GOOD, GOOD)[0]} == {0}


def test_one_image_never_decides() -> None:
    rows, _ = compare(_scores("a", ["111"], [0.1]), _scores("b", ["000"], [0.9]))
    assert {row.better for row in rows} == {0}


def test_only_common_images_are_compared() -> None:
    assert compare(_scores("good", ["111"] * 7, [0.05] * 7), BAD)[0][0].images == 7


@pytest.mark.parametrize("change", ["data", "protocol"])
def test_other_data_or_another_protocol_is_said_not_compared(change: str) -> None:
    rows, notes = compare(GOOD, _bad(**{change: "different"}))
    assert [row.benchmark for row in rows] == ["da2k"]
    assert notes == ["nyu: the two were scored on different data or under different protocols"]


def test_a_missing_or_damaged_score_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dav2 evaluate teacher"):
        ScoreFile.read(tmp_path / "teacher.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json cannot be used \(Invalid JSON.*delete it and make it again"):
        ScoreFile.read(tmp_path / "a.json")
    for text, why in (("[]", "should be an object"), ('{"da2k": {}}', "model: Field required")):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ValueError, match=rf"b\.json cannot be used .*{why}"):
            ScoreFile.read(tmp_path / "b.json")
