from __future__ import annotations

import numpy as np

from dav2.scenes.pairs import MARGIN, draw_pairs
from tests.scenes import analytic


def test_pairs_lie_on_different_things_with_the_closer_point_first() -> None:
    capture = analytic.capture(160, 120)
    pairs = draw_pairs(capture, np.random.default_rng(0), 20)
    assert len(pairs) == 20
    for near, far in pairs:
        assert capture.shape[near] != capture.shape[far]
        assert capture.depth[near] * 1.25 <= capture.depth[far] < np.inf


def test_points_keep_away_from_borders_of_things() -> None:
    capture = analytic.capture(160, 120)
    for pair in draw_pairs(capture, np.random.default_rng(1), 20):
        for row, column in pair:
            around = np.s_[row - MARGIN : row + MARGIN + 1, column - MARGIN : column + MARGIN + 1]
            assert len(np.unique(capture.shape[around])) == 1


def test_the_lower_point_is_the_closer_one_in_about_the_wanted_share() -> None:
    capture = analytic.capture(160, 120)
    for share in (0.0, 0.5):
        pairs = [
            p for seed in range(20) for p in draw_pairs(capture, np.random.default_rng(seed), 8, against_row=share)
        ]
        lower = np.mean([near[0] > far[0] for near, far in pairs])
        assert abs(lower - (1 - share)) < 0.15


def test_an_empty_sky_has_no_pairs() -> None:
    capture = analytic.capture(shapes=analytic.Shapes(ground=None, spheres=((0, -5, 0, 1),), boxes=()))
    assert draw_pairs(capture, np.random.default_rng(0), 5) == []
