"""Batches are a pure function of (seed, index), whatever ranks, workers and caches there are."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from dav2.data.feed.colours import finished
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.feed.targets import MEAN, STD, target_tables
from dav2.data.store.depth_codec import SKY, UNKNOWN, encode_disparity, metric_codes
from dav2.data.store.ingest import ingest
from dav2.data.store.manifest import MANIFEST, ManifestError, read_manifest
from dav2.data.store.shards import ShardError, ShardWriter, read_frame
from dav2.params import AugmentParams
from tests.data.builders import ingestion, photograph, photographs, vkitti2, write_photographs, write_vkitti2

PLAIN = AugmentParams(flip=0.0)
STRONG = AugmentParams(flip=0.5, jitter=0.5, blur=0.3, cutmix=0.6, scale=(1.0, 1.4), crops=[(28, 56)])
TENSORS = ("image", "target", "mask", "region")


@pytest.fixture(scope="module")
def depth_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vkitti2")
    write_vkitti2(folder / "raw", scenes=2, frames=7)
    ingest("vkitti2", vkitti2(folder / "raw"), ingestion(5), folder / "shards")
    return folder / "shards"


def smooth_label(key, height=45, width=60):
    """A label of another size than its photograph, linear in x with a slope that depends on the key."""
    slope = 1 + sum(key.encode()) % 7
    return np.tile(np.linspace(0, slope, width, dtype=np.float32), (height, 1)) + np.float32(0.5)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Photographs and pseudo-labels as the labelling stage writes them."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder / "raw", 12)
    ingest("views", photographs(folder / "raw"), ingestion(5), folder / "shards")
    write_labels(folder / "labels", read_manifest(folder / "shards"), "jxl12", 12)
    return Part(str(folder / "shards"), str(folder / "labels"))


def write_labels(out, frames, codec, bits):
    rows = []
    for shard, group in frames.groupby("shard"):
        with ShardWriter(out / shard) as writer:
            for _, frame in group.iterrows():
                data, meta = encode_disparity(smooth_label(frame["key"]), bits, codec)
                field = {"png16": "disp.png", "jxl12": "disp.jxl", "jpegls12": "disp.jls"}[codec]
                place = writer.add(frame["key"], {field: data, "json": json.dumps(meta).encode()})[field]
                rows.append(
                    {
                        "key": frame["key"],
                        "shard": shard,
                        "offset_label": place.offset,
                        "size_label": place.size,
                        "codec": codec,
                        "bits": bits,
                        "vmin": meta["min"],
                        "vmax": meta["max"],
                        "image_sha256": frame["sha256"],
                    }
                )
    frames[["key"]].merge(type(frames)(rows), on="key").to_parquet(out / MANIFEST)


def training_data(part, **settings):
    settings = {"crop": 42, "batch": 8, "seed": 3, "augment": STRONG} | settings
    return TrainingData([part], **settings)


def shown_image(image):
    """Pixels 0–255 (H, W, 3) of a normalised image."""
    return ((image.permute(1, 2, 0) * torch.tensor(STD) + torch.tensor(MEAN)) * 255).numpy()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in TENSORS) and a["keys"] == b["keys"]


def test_shapes_types_and_ranges_are_as_promised(depth_shards):
    batch = training_data(Part(str(depth_shards)), augment=PLAIN).batch(0)
    assert batch["image"].shape == (8, 3, 42, 42) and batch["image"].dtype == torch.float32
    assert batch["target"].shape == (8, 42, 42) and batch["target"].dtype == torch.float32
    assert batch["mask"].dtype == torch.bool and batch["region"].dtype == torch.uint8
    assert batch["target"].amin((1, 2)).tolist() == [0.0] * 8 and batch["target"].amax((1, 2)).tolist() == [1.0] * 8
    assert not batch["region"].any() and len(batch["keys"]) == 8 and batch["index"] == 0
    assert batch["image"].is_contiguous()


def test_an_image_without_augmentation_is_the_resized_and_normalised_crop(depth_shards):
    data = training_data(Part(str(depth_shards)), augment=PLAIN, batch=14, crop=98)
    batch = data.batch(0)
    frames = read_manifest(depth_shards).set_index("key", drop=False)
    for key, image in zip(batch["keys"], batch["image"], strict=True):
        frame = read_frame(depth_shards, frames.loc[key])
        whole = cv2.resize(frame.rgb, (323, 98), interpolation=cv2.INTER_CUBIC)
        shown = shown_image(image)
        errors = [np.abs(shown - whole[:, x : x + 98]).max() for x in range(323 - 98 + 1)]
        assert min(errors) < 1.5


def test_targets_are_disparity_with_sky_at_zero(depth_shards):
    data = training_data(Part(str(depth_shards)), augment=PLAIN, crop=98)
    batch = data.batch(1)
    assert batch["mask"].all()
    sky_rows = int(20 * 98 / 94) - 1
    assert (batch["target"][:, :sky_rows] == 0).all() and (batch["target"][:, sky_rows + 3 :] > 0).all()


def test_metric_targets_are_metres_within_the_range(depth_shards):
    data = training_data(Part(str(depth_shards)), augment=PLAIN, target="metres", min_depth=5.0, max_depth=40.0)
    batch = data.batch(0)
    inside = batch["target"][batch["mask"]]
    assert inside.min() > 5 and inside.max() <= 40
    assert (batch["target"][~batch["mask"]] == 0).all() and (~batch["mask"]).any()


def test_a_batch_depends_only_on_seed_and_index(depth_shards, labelled):
    for part in (Part(str(depth_shards)), labelled):
        data, fresh = training_data(part), training_data(part, cache_mb=0)
        later = [data.batch(i) for i in range(6)]
        assert same(fresh.batch(5), later[5]) and same(data.batch(2), later[2])
        assert not torch.equal(training_data(part, seed=4).batch(5)["image"], later[5]["image"])


@pytest.mark.parametrize("world", [2, 4, 8])
def test_ranks_share_the_same_batch_at_any_number_of_them(labelled, world):
    whole = training_data(labelled).batch(7)
    parts = [training_data(labelled, rank=r, world=world).batch(7) for r in range(world)]
    for name in TENSORS:
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    assert [key for part in parts for key in part["keys"]] == whole["keys"]


@pytest.mark.parametrize("workers", [0, 3])
def test_iterating_from_anywhere_gives_the_same_batches_in_order(labelled, workers):
    data = training_data(labelled, workers=workers)
    stream = data.iterate(4)
    for index in range(4, 9):
        batch = next(stream)
        assert batch["index"] == index and same(batch, training_data(labelled).batch(index))
    stream.close()


def test_one_epoch_visits_every_frame_once(depth_shards):
    data = training_data(Part(str(depth_shards)), augment=PLAIN, batch=7)
    keys = data.batch(0)["keys"] + data.batch(1)["keys"]
    assert sorted(keys) == sorted(read_manifest(depth_shards)["key"])


def test_crop_shapes_are_drawn_per_batch(labelled):
    shapes = {tuple(training_data(labelled).batch(i)["image"].shape[2:]) for i in range(12)}
    assert shapes == {(42, 42), (28, 56)}


@pytest.mark.parametrize(("codec", "bits"), [("png16", 16), ("jpegls12", 12), ("jxl12", 10)])
def test_labels_of_every_codec_become_the_target(labelled, tmp_path, codec, bits):
    write_labels(tmp_path, read_manifest(labelled.shards), codec, bits)
    batch = training_data(Part(labelled.shards, str(tmp_path)), augment=PLAIN, crop=56).batch(0)
    ramp = torch.linspace(0, 1, 56).expand(8, 56, 56)
    assert batch["mask"].all() and (batch["target"] - ramp).abs().max() < 0.02


def test_cutmix_takes_image_and_target_from_one_other_frame_of_the_batch(labelled):
    data = training_data(labelled, augment=AugmentParams(flip=0.0, cutmix=1.0), crop=42)
    plain = training_data(labelled, augment=PLAIN, crop=42)
    mixed, whole = data.batch(2), plain.batch(2)
    rows = {key: row for row, key in enumerate(whole["keys"])}
    for row, key in enumerate(mixed["keys"]):
        own, other = key.split("+")
        inside = mixed["region"][row] == 1
        assert 0 < inside.sum() < inside.numel()
        for name in ("image", "target"):
            mine, theirs = whole[name][rows[own]], whole[name][rows[other]]
            assert torch.equal(mixed[name][row], torch.where(inside, theirs, mine))


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_that_the_device_finishes_is_the_one_that_the_host_makes(labelled, depth_shards, world):
    for part in (labelled, Part(str(depth_shards))):
        for rank in range(world):
            settings = {"augment": STRONG.model_copy(update={"crops": []}), "crop": 64, "rank": rank, "world": world}
            host, device = training_data(part, **settings), training_data(part, **settings, raw=True)
            for index in range(4):
                sent = device.batch(index)
                assert "image" not in sent and sent["pixels"].dtype == torch.uint8
                made = finished(sent)
                assert same(host.batch(index), made) and "pixels" not in made


def test_large_jpegs_are_decoded_at_reduced_size_without_visible_loss(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"raw/a/{number}.jpg"), photograph(number, 700, 900)[..., ::-1])
    ingest("views", photographs(tmp_path / "raw"), ingestion(), tmp_path / "shards")
    write_labels(tmp_path / "labels", read_manifest(tmp_path / "shards"), "png16", 16)
    part = Part(str(tmp_path / "shards"), str(tmp_path / "labels"))
    batch = training_data(part, crop=140, batch=4, augment=PLAIN).batch(0)
    frames = read_manifest(tmp_path / "shards").set_index("key", drop=False)
    for key, image in zip(batch["keys"], batch["image"], strict=True):
        whole = read_frame(part.shards, frames.loc[key]).rgb
        exact = cv2.resize(whole, (180, 140), interpolation=cv2.INTER_AREA)
        shown = shown_image(image)
        errors = [np.abs(shown - exact[:, x : x + 140]) for x in range(41)]
        assert min(error.max() for error in errors) < 6 and min(error.mean() for error in errors) < 0.7


def test_a_picture_that_two_sources_hold_is_taken_once_and_never_if_one_holds_it_out(tmp_path):
    # The second source has both scenes of the first, one of which the first holds out, and a third.
    write_vkitti2(tmp_path / "raw_a", scenes=2, frames=4)
    write_vkitti2(tmp_path / "raw_b", scenes=3, frames=4)
    for name, share in (("a", 0.5), ("b", 0.0)):
        ingest(name, vkitti2(tmp_path / f"raw_{name}", share), ingestion(5), tmp_path / name)
    parts, settings = [Part(str(tmp_path / name)) for name in "ab"], {"crop": 42, "batch": 4, "seed": 3}
    data = TrainingData(parts, augment=PLAIN, **settings)
    tables = [read_manifest(part.shards) for part in parts]
    held = set(tables[0]["pixel_sha256"][tables[0]["split"] == "val"])
    pictures = pd.concat(tables).set_index("key")["pixel_sha256"]
    seen = [pictures[key] for index in range(2) for key in data.batch(index)["keys"]]
    assert len(held) == 4 and len(data) == 8 and data.frames.repeated == 8
    assert sorted(seen) == sorted(set(pictures) - held)
    held_out = TrainingData([Part(str(tmp_path / "a"), split="val")], augment=PLAIN, **settings)
    assert len(held_out) == 4 and held_out.frames.repeated == 0


def test_a_batch_that_ranks_cannot_share_is_refused(depth_shards):
    with pytest.raises(ValueError, match="cannot be shared by 3 ranks"):
        training_data(Part(str(depth_shards)), world=3)


def test_a_split_without_frames_is_named(depth_shards):
    with pytest.raises(ManifestError, match="no frame of split 'test'"):
        training_data(Part(str(depth_shards), split="test"))


def test_labels_of_other_pixels_are_refused(labelled, tmp_path):
    frames = read_manifest(labelled.shards)
    write_labels(tmp_path, frames.assign(sha256="0" * 64), "png16", 16)
    with pytest.raises(ManifestError, match="12 labels were made from other pixels"):
        training_data(Part(labelled.shards, str(tmp_path)))


def test_photographs_without_labels_cannot_be_trained_on(labelled):
    with pytest.raises(ManifestError, match="has depth; name its labels"):
        training_data(Part(labelled.shards))


def test_a_damaged_shard_names_the_frame(depth_shards, tmp_path):
    for path in depth_shards.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    row = read_manifest(tmp_path).iloc[0]
    data = bytearray((tmp_path / row["shard"]).read_bytes())
    data[row["offset_depth"] : row["offset_depth"] + 8] = b"\0" * 8
    (tmp_path / row["shard"]).write_bytes(bytes(data))
    loader = training_data(Part(str(tmp_path)), batch=14, augment=PLAIN)
    with pytest.raises(ShardError, match=row["key"]):
        loader.batch(0)


def test_two_flipped_bytes_in_an_image_stop_at_the_loader(depth_shards, tmp_path):
    for path in depth_shards.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    row = read_manifest(tmp_path).iloc[0]
    data = bytearray((tmp_path / row["shard"]).read_bytes())
    middle = row["offset_image"] + row["size_image"] // 2
    data[middle], data[middle + 1] = data[middle] ^ 0x55, data[middle + 1] ^ 0x55
    (tmp_path / row["shard"]).write_bytes(bytes(data))
    with pytest.raises(ShardError, match=f"{row['key']}.*not the one that was ingested"):
        training_data(Part(str(tmp_path)), batch=14, augment=PLAIN).batch(0)


def test_batches_from_a_bucket_are_those_from_the_folder(depth_shards, bucket):
    import s3fs

    s3fs.S3FileSystem().put(str(depth_shards), f"{bucket}/shards", recursive=True)
    local, remote = training_data(Part(str(depth_shards))), training_data(Part(f"{bucket}/shards"))
    assert same(local.batch(3), remote.batch(3))


@pytest.mark.parametrize("space", ["disparity", "log_depth", "depth"])
def test_every_relative_space_ranks_pixels_alike_and_none_makes_up_values(space: str) -> None:
    values, valid = target_tables(space, 1e-3, None)
    codes = metric_codes(np.array([[0.5, 2.0, 9.0, 40.0]], np.float32))
    assert values[codes].ravel().argsort()[::-1].tolist() == [0, 1, 2, 3]
    assert valid[codes].all() and np.isfinite(values).all()
    assert valid[SKY] == (space == "disparity") and not valid[UNKNOWN]


@pytest.mark.parametrize("space", ["disparity", "log_depth", "depth"])
def test_a_label_is_taken_as_its_teacher_meant_it_whatever_the_space(labelled: Part, space: str) -> None:
    plain = training_data(labelled, augment=PLAIN).batch(0)
    other = training_data(labelled, augment=PLAIN, target=space).batch(0)
    assert torch.equal(plain["target"], other["target"]) and torch.isfinite(other["target"]).all()
