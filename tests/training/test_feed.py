"""Batches that are finished on the device, ahead of the step or not, are those that the host makes."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
import torch

from dav2.data.feed.loader import Part, TrainingData
from dav2.data.store.ingest import ingest
from dav2.params import AugmentParams
from dav2.training.feed import AHEAD, feeding
from tests.data.builders import ingestion, vkitti2, write_vkitti2

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vkitti2")
    write_vkitti2(folder / "raw", scenes=1, frames=6)
    ingest("vkitti2", vkitti2(folder / "raw"), ingestion(5), folder / "shards")
    return folder / "shards"


def data(shards: Path, raw: bool) -> TrainingData:
    augment = AugmentParams(flip=0.5, jitter=0.8, blur=0.5, cutmix=0.6)
    return TrainingData([Part(str(shards))], crop=64, batch=4, seed=1, augment=augment, workers=2, raw=raw)


@pytest.mark.parametrize("ahead", [0, AHEAD])
@pytest.mark.parametrize("raw", [False, True])
def test_what_arrives_is_what_the_host_makes(shards: Path, ahead: int, raw: bool) -> None:
    plain = data(shards, raw=False)
    with feeding(data(shards, raw).iterate(3), CPU, ahead) as batches:
        for index, batch in enumerate(itertools.islice(batches, 5), start=3):
            expected = plain.batch(index)
            assert batch["keys"] == expected["keys"]
            for name in ("image", "target", "mask", "region"):
                assert torch.equal(batch[name], expected[name]), name  # type: ignore[literal-required]


def test_threads_end_with_the_feed_and_errors_come_through(shards: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield {"keys": []}
        raise OSError("the disk is gone")

    with feeding(broken(), CPU, AHEAD) as batches:
        next(batches)
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)
    with feeding(data(shards, raw=True).iterate(), CPU, AHEAD) as batches:
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("feed", "loader"))]


def test_at_most_so_many_are_made_before_their_turn() -> None:
    made: list[int] = []

    def counted():  # type: ignore[no-untyped-def]
        for index in itertools.count():
            made.append(index)
            yield {"keys": [index]}

    with feeding(counted(), CPU, AHEAD) as batches:
        for _ in range(4):
            next(batches)
    assert len(made) <= 4 + AHEAD


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finishes_a_batch_to_the_byte_as_the_host_does(shards: Path) -> None:
    device, plain = torch.device("cuda"), data(shards, raw=False)
    with feeding(data(shards, raw=True).iterate(), device) as batches:
        for index, batch in enumerate(itertools.islice(batches, 6)):
            assert batch["image"].is_cuda and torch.equal(batch["image"].cpu(), plain.batch(index)["image"])
