"""Bootstrap intervals: clustered by image, paired between models, reproducible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dav2.scores.statistics import bootstrap_difference, bootstrap_ratio


def test_the_interval_equals_a_plain_loop_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    total = rng.integers(1, 5, 60)
    right = rng.binomial(total, 0.8)
    interval = bootstrap_ratio(right, total, samples=4000)
    draws = []
    for _ in range(4000):
        chosen = rng.integers(0, 60, 60)
        draws.append(right[chosen].sum() / total[chosen].sum())
    assert interval.value == right.sum() / total.sum()
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)


def test_pairs_of_one_image_do_not_count_as_independent() -> None:
    right = np.array([0, 10] * 20)
    clustered = bootstrap_ratio(right, np.full(40, 10))
    independent = bootstrap_ratio(np.repeat([0, 1], 200), np.ones(400))
    assert clustered.high - clustered.low > 2 * (independent.high - independent.low)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, ones = np.random.default_rng(1).random(50), np.ones(50)
    assert bootstrap_ratio(values, ones, seed=3) == bootstrap_ratio(values, ones, seed=3)
    assert bootstrap_ratio(values, ones, seed=3) != bootstrap_ratio(values, ones, seed=4)


def test_large_sets_are_resampled_in_chunks_with_the_same_meaning() -> None:
    values = np.random.default_rng(2).random(9000)
    interval = bootstrap_ratio(values, np.ones(9000), samples=1000)
    half_width = 1.96 * values.std() / math.sqrt(9000)
    assert interval.high - interval.value == pytest.approx(half_width, rel=0.15)


def test_pairing_finds_a_small_difference_that_separate_intervals_would_hide() -> None:
    rng = np.random.default_rng(3)
    hardness = rng.random(200)
    first, second = hardness + 0.02 + rng.normal(0, 0.01, 200), hardness
    difference = bootstrap_difference(first, second, np.ones(200))
    assert difference.low > 0
    assert difference.p < 0.01
    separate = bootstrap_ratio(first, np.ones(200)), bootstrap_ratio(second, np.ones(200))
    assert separate[0].low < separate[1].high


def test_equal_models_differ_by_nothing() -> None:
    values = np.random.default_rng(4).random(30)
    assert bootstrap_difference(values, values, np.ones(30)) == (0.0, 0.0, 0.0, 1.0)


def test_a_single_image_has_a_score_but_no_interval() -> None:
    assert bootstrap_ratio([3], [4]).value == 0.75
    assert math.isnan(bootstrap_ratio([3], [4]).low)
    difference = bootstrap_difference([3], [1], [4])
    assert difference.value == 0.5
    assert math.isnan(difference.low)
    assert math.isnan(difference.p)


def test_nothing_to_compare_is_nan_and_unequal_lengths_are_refused() -> None:
    assert math.isnan(bootstrap_ratio([], []).value)
    assert math.isnan(bootstrap_difference([], [], []).p)
    with pytest.raises(ValueError, match="one length"):
        bootstrap_ratio([1, 2], [1])
