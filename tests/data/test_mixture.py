"""Sources mixed by probability, each with its own crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dav2.data.feed.frame_table import Part
from dav2.data.feed.loader import TrainingData
from dav2.data.feed.mixture import BLOCK, MixedOrder, Portion
from dav2.params import AugmentParams
from tests.training.world import write_source

SIZES = {"rooms": range(0, 10), "halls": range(20, 27)}
MIX = [Portion(3.0), Portion(1.0, (32, 64))]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Part]:
    root = tmp_path_factory.mktemp("mixture")
    for name, numbers in SIZES.items():
        write_source(root / name, name, "synthetic", numbers)
    return [Part(str(root / name)) for name in SIZES]


def data(parts: list[Part], mix: list[Portion], rank: int = 0, world: int = 1, workers: int = 0) -> TrainingData:
    augment = AugmentParams(flip=0.5, jitter=0.3)
    return TrainingData(
        parts, crop=48, batch=4, seed=5, augment=augment, rank=rank, world=world, workers=workers, mix=mix
    )


def test_a_batch_comes_from_one_source_and_has_its_crop(parts: list[Part]) -> None:
    mixed = data(parts, MIX)
    counts = {"rooms": 0, "halls": 0}
    visited: dict[str, list[str]] = {"rooms": [], "halls": []}
    for index in range(60):
        batch = mixed.batch(index)
        (source,) = {key.split("/")[0] for key in batch["keys"]}
        assert tuple(batch["image"].shape[-2:]) == {"rooms": (48, 48), "halls": (32, 64)}[source]
        counts[source] += 1
        visited[source] += batch["keys"]
    assert 35 <= counts["rooms"] <= 55, "three batches of four, about"
    for name, keys in visited.items():
        size = len(SIZES[name])
        for first in range(0, len(keys) - size + 1, size):
            assert len(set(keys[first : first + size])) == size, "each source goes through its own epochs"


def test_batches_are_a_function_of_seed_and_index_alone(parts: list[Part]) -> None:
    whole = [data(parts, MIX).batch(index) for index in range(6)]
    late = data(parts, MIX, workers=3).iterate(3)
    for expected in whole[3:]:
        found = next(late)
        assert found["keys"] == expected["keys"] and torch.equal(found["image"], expected["image"])
    late.close()
    halves = [data(parts, MIX, rank, 2).batch(4) for rank in range(2)]
    assert torch.equal(torch.cat([half["image"] for half in halves]), whole[4]["image"])


def test_counts_are_kept_over_blocks_of_draws() -> None:
    sizes = np.array([3, 4, 5])
    order = MixedOrder(sizes, [7, 5], [Portion(1.0), Portion(2.0)], 2, 0)
    drawn = [order.source(index) for index in range(BLOCK + 20)]
    assert np.mean(drawn) == pytest.approx(2 / 3, abs=0.03)
    assert order.source(3 * BLOCK) in (0, 1)
    index = BLOCK + 19
    source = drawn[index]
    earlier = drawn[:index].count(source)
    place = order.frame(2 * index) - (0 if source == 0 else 7)
    assert place == order._orders[source].frame(2 * earlier)
    assert MixedOrder(sizes, [7, 5], [Portion(1.0), Portion(2.0)], 2, 0).frame(2 * index) == order.frame(2 * index)


def test_portions_that_do_not_fit_are_named(parts: list[Part], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 sources are mixed by 1 portions"):
        data(parts, MIX[:1])
    twice = [parts[0], Part(str(tmp_path / "again"))]
    write_source(tmp_path / "again", "again", "synthetic", SIZES["rooms"])
    with pytest.raises(ValueError, match="source number 1 of the mixture has no frame left to draw"):
        data(twice, MIX)


def test_without_portions_all_is_as_it_was(parts: list[Part]) -> None:
    plain = data(parts, [])
    assert {key.split("/")[0] for index in range(4) for key in plain.batch(index)["keys"]} == {"rooms", "halls"}
    assert plain.mixed is None and plain.frames.part_sizes == [10, 7]
    assert plain.batch(2)["keys"] == [plain.frames.key(plain.order.frame(position)) for position in range(8, 12)]
