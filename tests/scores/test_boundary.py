"""Boundary measures against slow versions and hand-made edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dav2.scores.boundary import MAX_DISTANCE, RATIOS, boundary_errors, boundary_f1, boundary_scores, depth_edges


def slow_f1(depth: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    height, width = depth.shape
    total = weights = 0.0
    for ratio in RATIOS.tolist():
        precision = recall = 0.0
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            hits = predicted = true = 0
            for y in range(height):
                for x in range(width):
                    v, u = y + dy, x + dx
                    if not (0 <= v < height and 0 <= u < width and mask[y, x] and mask[v, u]):
                        continue
                    p, t = depth[v, u] / depth[y, x] > ratio, target[v, u] / target[y, x] > ratio
                    hits, predicted, true = hits + (p and t), predicted + p, true + t
            precision += hits / max(predicted, 1) / 4
            recall += hits / max(true, 1) / 4
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        total, weights = total + ratio * f1, weights + ratio
    return total / weights


def test_boundary_f1_equals_a_loop_over_neighbours() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 2, (9, 11)).astype(np.float32)
    depth = (target * rng.lognormal(0, 0.08, target.shape)).astype(np.float32)
    mask = rng.random(target.shape) < 0.8
    fast = boundary_f1(*(torch.from_numpy(each) for each in (depth, target, mask)))
    assert fast == pytest.approx(slow_f1(depth.astype(float), target.astype(float), mask), abs=1e-6)


def _step(column: int, near: float = 1.0, far: float = 2.0) -> torch.Tensor:
    depth = torch.full((40, 60), near)
    depth[:, column:] = far
    return depth


def test_a_scaled_truth_has_perfect_boundaries() -> None:
    truth, mask = _step(30), torch.ones(40, 60, dtype=torch.bool)
    # Only left-to-right steps exist, so the other three directions hold nothing to find: a quarter is full marks.
    assert boundary_f1(3 * truth, truth, mask) == pytest.approx(boundary_f1(truth, truth, mask))
    assert boundary_f1(_step(33), truth, mask) == 0.0


def test_a_flat_truth_has_no_boundary_score() -> None:
    flat, mask = torch.ones(40, 60), torch.ones(40, 60, dtype=torch.bool)
    assert math.isnan(boundary_f1(_step(20), flat, mask))
    assert all(math.isnan(value) for value in boundary_errors(np.ones((4, 4), bool), np.zeros((4, 4), bool)))


@pytest.mark.parametrize("shift", [0, 2, 5])
def test_edge_errors_are_the_shift_of_the_edge_in_pixels(shift: int) -> None:
    mask = torch.ones(40, 60, dtype=torch.bool)
    scores = boundary_scores(_step(30 + shift), _step(30), mask, ("dbe",))
    assert scores == {name: pytest.approx(shift, abs=0.1) for name in ("dbe_accuracy", "dbe_completeness")}


def test_an_edge_that_is_missed_or_far_away_costs_the_largest_distance() -> None:
    true = depth_edges(_step(30).numpy(), np.ones((40, 60), bool))
    assert true.any()
    assert boundary_errors(np.zeros_like(true), true) == (MAX_DISTANCE, MAX_DISTANCE)
    assert boundary_errors(np.roll(true, 20, axis=1), true) == (MAX_DISTANCE, MAX_DISTANCE)
