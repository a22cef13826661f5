"""Shards in a bucket, manifests in the project: readers do not notice."""

from __future__ import annotations

import pytest
import torch

from dav2.data import storage
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.store.ingest import ingest, ingest_into
from dav2.data.store.manifest import LOCATION, MANIFEST, ManifestError, read_manifest, shard_path
from dav2.data.store.shards import read_frame
from dav2.params import AugmentParams
from tests.data.builders import contents, ingestion, vkitti2, write_vkitti2


@pytest.fixture
def raw(tmp_path):
    write_vkitti2(tmp_path / "raw", scenes=2, frames=4)
    return vkitti2(tmp_path / "raw")


def batch(folder):
    return TrainingData([Part(str(folder))], crop=42, batch=4, seed=0, augment=AugmentParams()).batch(1)


def test_a_folder_whose_shards_are_in_a_bucket_reads_like_one_that_holds_them(raw, bucket, tmp_path):
    ingest("vkitti2", raw, ingestion(3), tmp_path / "whole")
    ingest_into(tmp_path / "thin", f"{bucket}/dav2", "vkitti2", raw, ingestion(3))
    whole, thin = contents(tmp_path / "whole"), contents(tmp_path / "thin")
    assert {name: data for name, data in whole.items() if not name.endswith(".tar")} == {
        name: data for name, data in thin.items() if name != LOCATION
    }
    for name in (name for name in whole if name.endswith(".tar")):
        assert storage.read(f"{bucket}/dav2/synthetic/vkitti2/{name}") == whole[name]
    row = read_manifest(tmp_path / "thin").iloc[-1]
    assert (read_frame(tmp_path / "thin", row).rgb == read_frame(tmp_path / "whole", row).rgb).all()
    here, there = batch(tmp_path / "whole"), batch(tmp_path / "thin")
    assert torch.equal(here["image"], there["image"]) and torch.equal(here["target"], there["target"])


def test_shards_move_into_a_bucket_and_back(raw, bucket, tmp_path):
    folder = tmp_path / "out"
    ingest_into(folder, None, "vkitti2", raw, ingestion(3))
    before = contents(folder)
    ingest_into(folder, bucket, "vkitti2", raw, ingestion(3))
    assert not list(folder.glob("*.tar")) and storage.is_remote(shard_path(folder, "train-000000.tar"))
    ingest_into(folder, None, "vkitti2", raw, ingestion(3))
    assert contents(folder) == before


def test_a_finished_ingestion_is_found_in_the_bucket(raw, bucket, tmp_path):
    first = ingest_into(tmp_path / "one", bucket, "vkitti2", raw, ingestion(3))
    counts = []
    again = ingest_into(
        tmp_path / "two", bucket, "vkitti2", raw, ingestion(3), progress=lambda *done: counts.append(done)
    )
    assert again == first and not counts
    assert (tmp_path / "two" / MANIFEST).read_bytes() == (tmp_path / "one" / MANIFEST).read_bytes()


def test_a_damaged_pointer_is_named(tmp_path):
    (tmp_path / LOCATION).write_text("{}")
    with pytest.raises(ManifestError, match=r"location.json is damaged \('shards'\); ingest this source again"):
        shard_path(tmp_path, "train-000000.tar")
