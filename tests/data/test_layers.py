"""Normals, appearance and light: checked when a frame is made, stored as 16-bit codes, fed as targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dav2.data.feed.layers import LIGHT_QUANTILE, layer_targets, place_layer
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.feed.transforms import Geometry
from dav2.data.frame import Frame, FrameError
from dav2.data.raw.sources import Item
from dav2.data.store.ingest.shard import Settings, ShardTask, make_shard
from dav2.data.store.layer_codec import PLANES, decode_layer, decode_layer_codes, encode_layer, layer_codes
from dav2.data.store.manifest import MANIFEST, ManifestError, read_manifest, write_manifest
from dav2.data.store.packing import CodecError
from dav2.data.store.shards import ShardWriter, read_frame
from dav2.maps import LAYERS, Quantity
from dav2.params import AugmentParams
from tests.data.builders import photograph

Q = Quantity
PLAIN = AugmentParams(flip=0, scale=(1.0, 1.0))


def some_layer(quantity: Quantity, shape: tuple[int, int] = (40, 56), seed: int = 0) -> np.ndarray:
    """A layer with structure, every sign and size that it may have, and a gap."""
    rng = np.random.default_rng(seed)
    if quantity is Q.NORMALS:
        values = rng.normal(size=(*shape, 3))
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
    elif quantity in (Q.SHADING, Q.RESIDUAL):
        values = rng.exponential(3, (*shape, 3)) ** 2
    else:
        values = rng.uniform(0, 1, (*shape, 3)[: 2 if quantity.channels == 1 else 3])
    values = values.astype(np.float32)
    values[3:7, 5:9] = np.nan
    return values


def frame_with(key: str, seed: int, *layers: Quantity) -> Frame:
    return Frame(key, photograph(seed, 40, 56), **{q.value: some_layer(q, seed=seed) for q in layers})


class Frames:
    """A source of frames made here."""

    name, group, licence = "made", "synthetic", ""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = {frame.key: frame for frame in frames}

    def index(self) -> list[Item]:
        return [Item(key, key.split("/")[1], "", (f"{key}.png",)) for key in self.frames]

    def read(self, item: Item) -> Frame:
        return self.frames[item.key]

    def notes(self) -> list[str]:
        return []


def shards_of(frames: list[Frame], out: Path) -> Path:
    """The shard and the manifest that ingestion makes of these frames."""
    source = Frames(frames)
    settings = Settings("made", "", "made", "synthetic", {}, 8, 10**6, 8.0, 95)
    task = ShardTask("train-000000.tar", "train", tuple(source.index()), "f")
    receipt = make_shard(task, settings, source, out)
    assert not receipt.quarantine
    write_manifest(out, [receipt.rows], {})
    return out


@pytest.mark.parametrize("quantity", LAYERS)
def test_a_layer_comes_back_to_within_the_stated_error(quantity: Quantity) -> None:
    values = some_layer(quantity, (60, 80))
    back = decode_layer(quantity, encode_layer(quantity, values))
    assert back.shape == values.shape and back.dtype == np.float32
    assert np.array_equal(np.isnan(back), np.isnan(values))
    known = ~np.isnan(values)
    if quantity is Q.NORMALS:
        pairs = values[known].reshape(-1, 3).astype(np.float64), back[known].reshape(-1, 3).astype(np.float64)
        angle = np.degrees(2 * np.arcsin(np.linalg.norm(pairs[0] - pairs[1], axis=1) / 2))
        assert 0 < angle.max() < 0.004
    else:
        assert (np.abs(back - values)[known] <= np.maximum(4.9e-4 * values[known], 3e-8)).all()


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(-1, 1, width=32)] * 3).filter(lambda v: np.linalg.norm(v) > 0.01))
def test_any_direction_comes_back(vector: tuple[float, float, float]) -> None:
    normal = (np.array(vector) / np.linalg.norm(vector)).astype(np.float32).reshape(1, 1, 3)
    back = decode_layer(Q.NORMALS, encode_layer(Q.NORMALS, normal)).astype(np.float64)
    assert 2 * np.arcsin(np.linalg.norm(back - normal) / 2) < np.radians(0.004)


def test_the_normal_that_faces_the_viewer_and_half_floats_come_back_exactly() -> None:
    facing = np.broadcast_to(np.array([0, 0, 1], np.float32), (8, 9, 3))
    assert np.array_equal(decode_layer(Q.NORMALS, encode_layer(Q.NORMALS, facing)), facing)
    halves = some_layer(Q.SHADING).astype(np.float16).astype(np.float32)
    assert np.array_equal(decode_layer(Q.SHADING, encode_layer(Q.SHADING, halves)), halves, equal_nan=True)
    bright = np.full((4, 4, 3), 1e9, np.float32)
    assert (decode_layer(Q.SHADING, encode_layer(Q.SHADING, bright)) == 65504).all()


def test_a_damaged_or_foreign_layer_is_refused() -> None:
    data = encode_layer(Q.ALBEDO, some_layer(Q.ALBEDO))
    huge = data[:12] + (10**5).to_bytes(4, "little") * 2 + data[20:]
    for bad, words in [
        (data[:-3], "cut off"), (data[:40] + b"\0" + data[41:], "damaged"), (b"", "another format"),
        (huge, "claims 100000 × 100000"), (encode_layer(Q.SHADING, some_layer(Q.SHADING)), "another than albedo"),
    ]:  # fmt: skip
        with pytest.raises(CodecError, match=words):
            decode_layer_codes(Q.ALBEDO, bad)


@pytest.mark.parametrize(
    ("quantity", "value", "words"),
    [
        (Q.NORMALS, 0.0, "length 1"), (Q.ALBEDO, 1.5, r"0 … 1"), (Q.SHADING, -1.0, "≥ 0"),
        (Q.RESIDUAL, np.inf, "infinit"),
        (Q.ROUGHNESS, -0.1, r"0 … 1"), (Q.METALLICITY, np.nan, "no pixel"),
    ],
)  # fmt: skip
def test_a_frame_refuses_what_no_layer_can_be(quantity: Quantity, value: float, words: str) -> None:
    shape = (40, 56, 3)[: 2 if quantity.channels == 1 else 3]
    values = np.full(shape, value, np.float32)
    if np.isinf(value):
        values[1:] = 1
    with pytest.raises(FrameError, match=words):
        Frame("a/b/c", photograph(0, 40, 56), **{quantity.value: values})
    with pytest.raises(FrameError, match="must be float32"):
        Frame("a/b/c", photograph(0, 40, 56), **{quantity.value: np.ones((40, 56, 2), np.float32)})


def test_layers_go_through_a_shard_and_the_manifest_says_which_there_are(tmp_path: Path) -> None:
    frames = [frame_with("made/a/0", 0, *LAYERS), frame_with("made/a/1", 1, Q.NORMALS), frame_with("made/b/2", 2)]
    rows = read_manifest(shards_of(frames, tmp_path)).set_index("key", drop=False)
    for frame in frames:
        row = rows.loc[frame.key]
        assert {q for q in LAYERS if row[f"size_{q}"] > 0} == set(frame.layers)
        back = read_frame(tmp_path, row)
        assert set(back.layers) == set(frame.layers)
        for quantity, values in frame.layers.items():
            assert np.array_equal(layer_codes(quantity, back.layers[quantity]), layer_codes(quantity, values))


def slow_place(quantity: Quantity, values: np.ndarray, factor: int) -> np.ndarray:
    """Mean of what is known in each block of factor × factor pixels; gaps where less than half is."""
    height, width = values.shape[0] // factor, values.shape[1] // factor
    placed = np.full((height, width, *values.shape[2:]), np.nan)
    for y in range(height):
        for x in range(width):
            block = values[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].astype(np.float64)
            block = block.reshape(factor * factor, -1)
            known = block[np.isfinite(block).all(axis=1)]
            if len(known) * 2 >= factor * factor:
                mean = known.mean(axis=0)
                placed[y, x] = mean / np.linalg.norm(mean) if quantity is Q.NORMALS else mean.reshape(placed.shape[2:])
    return placed


@pytest.mark.parametrize("quantity", [Q.NORMALS, Q.SHADING, Q.ROUGHNESS])
def test_shrinking_takes_the_mean_of_what_is_known_and_normals_stay_unit(quantity: Quantity) -> None:
    values = some_layer(quantity)
    if quantity is Q.NORMALS:
        values[..., 2] = np.abs(values[..., 2]) + 0.5
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
    placed = place_layer(quantity, values, Geometry(20, 28, 0, 0, 20, 28, False))
    expected = slow_place(quantity, values, 2)
    assert np.array_equal(np.isnan(placed), np.isnan(expected)) and np.isnan(placed).any()
    assert np.allclose(placed, expected, atol=2e-5, equal_nan=True)


def test_a_mirror_turns_x_over_and_nothing_else() -> None:
    plain, mirrored = Geometry(40, 56, 4, 6, 30, 40, False), Geometry(40, 56, 4, 6, 30, 40, True)
    for quantity in LAYERS:
        values = some_layer(quantity)
        once, again = place_layer(quantity, values, plain), place_layer(quantity, values, mirrored)[:, ::-1]
        if quantity is Q.NORMALS:
            again = again * np.array([-1, 1, 1], np.float32)
        assert np.allclose(once, again, atol=1e-6, equal_nan=True)
        assert np.allclose(once, values[4:34, 6:46], atol=1e-6, equal_nan=True)


def test_normals_that_cancel_are_unknown() -> None:
    values = np.zeros((8, 8, 3), np.float32)
    values[:, ::2, 0], values[:, 1::2, 0] = 1, -1
    assert np.isnan(place_layer(Q.NORMALS, values, Geometry(4, 4, 0, 0, 4, 4, False))).all()


def test_shading_and_residual_share_one_scale_and_keep_their_ratio() -> None:
    layers = [Q.SHADING, Q.RESIDUAL]
    shading, residual = some_layer(Q.SHADING), some_layer(Q.RESIDUAL, seed=1) / 4
    codes = np.concatenate([layer_codes(q, v) for q, v in zip(layers, (shading, residual), strict=True)])
    target, mask = layer_targets(layers, codes, Geometry(40, 56, 0, 0, 40, 56, False))
    c = max(np.nanquantile(shading, LIGHT_QUANTILE), np.nanquantile(residual, LIGHT_QUANTILE))
    for place, values in enumerate((shading, residual)):
        expected = np.where(np.isnan(values), 0, np.minimum(values / c, 1)).transpose(2, 0, 1)
        assert np.allclose(target[3 * place : 3 * place + 3], expected, rtol=2e-3)
        assert np.array_equal(mask[place], np.isfinite(values).all(-1))
    dark = np.concatenate([layer_codes(q, np.zeros((40, 56, 3), np.float32)) for q in layers])
    assert (layer_targets(layers, dark, Geometry(40, 56, 0, 0, 40, 56, False))[0] == 0).all()


def test_a_loader_gives_the_layers_that_are_asked_for_in_that_order(tmp_path: Path) -> None:
    asked = (Q.ROUGHNESS, Q.NORMALS)
    frames = [frame_with(f"made/a/{n}", n, *LAYERS) for n in range(4)] + [frame_with("made/b/9", 9, Q.NORMALS)]
    data = TrainingData([Part(str(shards_of(frames, tmp_path)))], crop=40, batch=4, seed=0, augment=PLAIN, layers=asked)
    assert len(data) == 4, "a frame without one of the layers is left out"
    batch = data.batch(0)
    assert batch["image"].shape == (4, 3, 40, 40)
    assert batch["target"].shape == (4, 4, 40, 40) and batch["mask"].shape == (4, 2, 40, 40)
    normals, known = batch["target"][:, 1:], batch["mask"][:, 1]
    assert np.allclose(normals.norm(dim=1)[known], 1, atol=1e-5) and (normals.movedim(1, -1)[~known] == 0).all()
    assert 0 < known.float().mean() < 1
    mixed = TrainingData(
        [Part(str(tmp_path))], crop=40, batch=4, seed=0, layers=asked,
        augment=AugmentParams(flip=0.5, jitter=1, blur=1, cutmix=1, scale=(1.0, 1.5)),
    )  # fmt: skip
    inside = mixed.batch(0)
    assert inside["region"].any() and all("+" in key for key in inside["keys"])
    assert np.allclose(inside["target"][:, 1:].norm(dim=1)[inside["mask"][:, 1]], 1, atol=1e-5)


def write_labels(shards: Path, out: Path, codec: str) -> None:
    """Labels of normals, smaller than their photographs, with a manifest as labels of depth have one."""
    frames, rows = read_manifest(shards), []
    with ShardWriter(out / "train-000000.tar") as writer:
        for frame in frames.to_dict("records"):
            normals = np.zeros((20, 28, 3), np.float32)
            normals[:, :14, 0], normals[:, 14:, 2] = 1, 1
            place = writer.add(frame["key"], {"normals.zst": encode_layer(Q.NORMALS, normals)})["normals.zst"]
            row = {
                "key": frame["key"],
                "shard": "train-000000.tar",
                "codec": codec,
                "bits": 16,
                "vmin": -1.0,
                "vmax": 1.0,
            }
            row |= {"offset_label": place.offset, "size_label": place.size, "image_sha256": frame["sha256"]}
            row |= {"vmin": -1.0, "vmax": 1.0}
            rows.append(row)
    pd.DataFrame(rows).to_parquet(out / MANIFEST)


def test_labels_of_one_layer_are_fed_like_the_layer_itself(tmp_path: Path) -> None:
    shards, labels = (
        shards_of([frame_with(f"made/a/{n}", n) for n in range(4)], tmp_path / "shards"),
        tmp_path / "labels",
    )
    labels.mkdir()
    write_labels(shards, labels, "normals")
    part = Part(str(shards), str(labels))
    data = TrainingData([part], crop=40, batch=4, seed=0, augment=AugmentParams(flip=1), layers=(Q.NORMALS,))
    batch = data.batch(0)
    assert batch["mask"].all() and batch["target"].shape == (4, 3, 40, 40)
    left, right = batch["target"][..., :10], batch["target"][..., 30:]
    assert np.allclose(left[:, 2], 1, atol=1e-6) and np.allclose(right[:, 0], -1, atol=1e-6), "mirrored, x turned over"
    with pytest.raises(ManifestError, match="its labels are not albedo"):
        TrainingData([part], crop=40, batch=4, seed=0, augment=PLAIN, layers=(Q.ALBEDO,))
    with pytest.raises(ManifestError, match="not of depth but of normals"):
        TrainingData([part], crop=40, batch=4, seed=0, augment=PLAIN)


def test_depth_needs_no_layers_and_layers_need_no_depth(tmp_path: Path) -> None:
    shards_of([frame_with("made/a/0", 0, Q.ALBEDO)], tmp_path)
    with pytest.raises(ManifestError, match="no frame of split 'train' has depth"):
        TrainingData([Part(str(tmp_path))], crop=8, batch=1, seed=0, augment=PLAIN)
    with pytest.raises(ManifestError, match="has albedo, normals; name them in the option 'layers'"):
        TrainingData([Part(str(tmp_path))], crop=8, batch=1, seed=0, augment=PLAIN, layers=(Q.ALBEDO, Q.NORMALS))


def test_planes_of_codes_are_counted_right() -> None:
    for quantity, planes in PLANES.items():
        assert layer_codes(quantity, some_layer(quantity)).shape == (planes, 40, 56)
