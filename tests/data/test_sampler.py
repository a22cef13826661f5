"""The order of frames is a permutation per epoch and a pure function of (seed, epoch, position)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav2.data.feed.sampler import FrameOrder, random_stream

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 50), st.integers(0, 3))
def test_every_epoch_visits_every_frame_once(sizes, seed, run, window, epoch):
    order = FrameOrder(sizes, seed, run=run, window=window)
    assert sorted(order.epoch(epoch)) == list(range(sum(sizes)))


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(0, 2**31), st.data())
def test_a_single_position_agrees_with_the_whole_epoch_in_a_fresh_order(sizes, seed, data):
    frames = sum(sizes)
    position = data.draw(st.integers(0, 3 * frames - 1))
    epoch, place = divmod(position, frames)
    whole = FrameOrder(sizes, seed, run=5, window=16).epoch(epoch)
    assert FrameOrder(sizes, seed, run=5, window=16).frame(position) == whole[place]


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(1, 50), st.integers(0, 200))
def test_a_window_says_which_runs_it_takes_its_frames_from(sizes, run, window, position):
    order = FrameOrder(sizes, 1, run=run, window=window)
    here = order.window_of(position)
    places = [p for p in range(position - window, position + window) if p >= 0 and order.window_of(p) == here]
    frames = [order.frame(place) for place in places]
    assert {order.run(frame) for frame in frames} == set(order.runs(here)) and max(places) + 1 == order.end_of(here)
    assert all(first <= frame < last for frame in frames for first, last in [order.bounds(order.run(frame))])


def test_epochs_and_seeds_differ():
    order = FrameOrder([500], 0)
    assert not np.array_equal(order.epoch(0), order.epoch(1))
    assert not np.array_equal(order.epoch(0), FrameOrder([500], 1).epoch(0))


def test_a_window_reads_from_few_stretches_of_the_files():
    order = FrameOrder([1000] * 64, 0, run=64, window=512)
    window = np.sort(order.epoch(0)[:512])
    assert np.sum(np.diff(window) > 1) + 1 <= 512 / 64 * 2 + 2


def test_frames_of_all_shards_meet_in_one_window():
    order = FrameOrder([64] * 20, 0, run=64, window=2048)
    shards = order.epoch(0)[:128] // 64
    assert len(set(shards)) > 15


def test_no_frames_is_an_error():
    with pytest.raises(ValueError, match="no frames"):
        FrameOrder([], 0)


def test_streams_of_random_numbers_are_independent_of_each_other():
    draws = {tuple(random_stream(0, stream, position).random(2)) for stream in range(3) for position in range(50)}
    assert len(draws) == 150
