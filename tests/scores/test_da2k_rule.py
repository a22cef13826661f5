"""DA-2K: strict comparison, micro average, and every unusable annotation named and counted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dav2.scores import da2k
from dav2.scores.da2k import Outcome, Pair


def _pair(first: tuple[int, int], second: tuple[int, int], closer: int = 1) -> dict[str, Any]:
    return {"point1": list(first), "point2": list(second), "closer": closer}


def test_points_are_row_then_column() -> None:
    disparity = np.zeros((4, 10))
    disparity[3, 8] = 1
    pairs, problems = da2k.read_pairs("a/b/c", [_pair((3, 8), (0, 0))], 4, 10)
    assert problems == []
    assert da2k.judge(disparity, pairs, 4, 10).tolist() == [Outcome.RIGHT]


def test_only_a_strictly_greater_disparity_at_the_nearer_point_is_right() -> None:
    disparity = np.array([[3.0, 1.0, 1.0, np.nan, np.inf]])
    pairs = [
        Pair((0, 0), (0, 1), 1),
        Pair((0, 0), (0, 1), 2),
        Pair((0, 1), (0, 0), 2),
        Pair((0, 1), (0, 2), 1),
        Pair((0, 0), (0, 3), 1),
        Pair((0, 4), (0, 0), 1),
    ]
    expected = [Outcome.RIGHT, Outcome.WRONG, Outcome.RIGHT, Outcome.TIE, Outcome.NOT_FINITE, Outcome.NOT_FINITE]
    assert da2k.judge(disparity, pairs, 1, 5).tolist() == expected


def test_a_prediction_of_another_size_scores_no_pair() -> None:
    pairs = [Pair((0, 0), (0, 1), 1)]
    assert da2k.judge(np.ones((2, 5)), pairs, 1, 5).tolist() == [Outcome.WRONG_SIZE]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (_pair((4, 0), (0, 0)), "point outside the image"),
        (_pair((0, 0), (0, -1)), "point outside the image"),
        (_pair((1, 1), (1, 1)), "equal points"),
        (_pair((0, 0), (1, 1), closer=3), "malformed annotation"),
        ({"point1": [0], "point2": [1, 1], "closer": 1}, "malformed annotation"),
        ({"point1": [0.5, 0], "point2": [1, 1], "closer": 1}, "malformed annotation"),
        ({"point2": [1, 1], "closer": 1}, "malformed annotation"),
    ],
)
def test_an_unusable_annotation_is_named_and_leaves_the_others(annotation: dict[str, Any], reason: str) -> None:
    pairs, problems = da2k.read_pairs("set/scene/image", [annotation, _pair((0, 0), (1, 1))], 4, 4)
    assert len(pairs) == 1
    assert [(problem.key, problem.reason) for problem in problems] == [("set/scene/image", reason)]
    assert "pair 0" in problems[0].detail


def test_the_score_is_the_micro_average_over_pairs() -> None:
    disparity = np.arange(16, dtype=np.float32).reshape(4, 4)
    many = {"scene": "indoor", "pairs": [_pair((3, 3), (0, i)) for i in range(3)]}
    one_wrong = {"scene": "aerial", "pairs": [_pair((0, 0), (3, 3)), _pair((9, 9), (0, 0))]}
    scored = [da2k.score_image(f"s/{n}", extra, disparity, 4, 4) for n, extra in enumerate((many, one_wrong))]
    results, problems = [each[0] for each in scored], [p for each in scored for p in each[1]]
    score = da2k.summarise(results, problems)
    assert score.accuracy == 3 / 4
    assert (score.pairs, score.images) == (4, 2)
    assert score.low <= score.accuracy <= score.high
    assert {kind: values["accuracy"] for kind, values in score.kinds.items()} == {"aerial": 0.0, "indoor": 1.0}
    assert score.problems == {"point outside the image": 1}
    assert score.outcomes == {"wrong": 1, "right": 3, "tie": 0, "not_finite": 0, "wrong_size": 0}


def test_no_pair_at_all_gives_nan_instead_of_a_score() -> None:
    assert math.isnan(da2k.summarise([]).accuracy)
