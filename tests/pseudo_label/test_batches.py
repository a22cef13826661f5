"""Batches are a function of the shard alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dav2.families.depth_anything.preprocess import network_shape
from dav2.pseudo_label import LabelError, plan_shards
from dav2.pseudo_label.batches import Photo, plan_batches, read_photos
from tests.pseudo_label.conftest import OPTIONS, SHAPES


def photos(count: int) -> list[Photo]:
    shapes = [SHAPES[(i * i) % 3] for i in range(count)]
    return [Photo(f"a/b/{i}", i, 1, width, height, "") for i, (height, width) in enumerate(shapes)]


def shape_of(photo: Photo) -> tuple[int, int]:
    return network_shape(photo.height, photo.width, 56)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_every_photograph_is_in_one_batch_with_others_of_its_shape(count: int) -> None:
    shard = photos(count)
    planned = plan_batches(shard, shape_of, 4)
    assert sorted(index for members in planned for index in members) == list(range(count))
    for members in planned:
        assert 1 <= len(members) <= 4
        assert len({shape_of(shard[i]) for i in members}) == 1
        assert members == sorted(members)


def test_only_the_last_batch_of_a_shape_may_be_small() -> None:
    shard = photos(40)
    planned = plan_batches(shard, shape_of, 4)
    small = [members for members in planned if len(members) < 4]
    shapes = [shape_of(shard[m[0]]) for m in small]
    assert len(shapes) == len(set(shapes))
    assert planned[len(planned) - len(small) :] == small


def test_photographs_are_read_in_the_order_of_their_shard(source: Path) -> None:
    task = plan_shards(str(source), str(source / "out"), "0" * 64, OPTIONS)[1]
    offsets = [photo.offset for photo in read_photos(task)]
    assert len(offsets) == 7
    assert offsets == sorted(offsets)


def test_a_manifest_that_changed_after_planning_is_refused(source: Path) -> None:
    task = plan_shards(str(source), str(source / "out"), "0" * 64, OPTIONS)[0]
    with pytest.raises(LabelError, match=r"7 photographs in train-000000\.tar, but 8 were planned"):
        read_photos(dataclasses.replace(task, frames=8))
