"""A small project to train on: blocks before a wall, as shards, with pseudo-labels and a DA-2K archive."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from dav2.data.images import encode_jpeg
from dav2.data.store.depth_codec import encode_disparity, encode_metric_codes, metric_codes
from dav2.data.store.manifest import write_manifest
from dav2.data.store.shards import ShardWriter

SIDE = 84


def scene(number: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGB and depth of a few blocks, brighter where nearer, with noise; sky at the top of every third image."""
    rng = np.random.default_rng(number)
    depth = np.linspace(9.0, 5.0, SIDE, dtype=np.float32)[:, None].repeat(SIDE, axis=1)
    for _ in range(5):
        top, left = rng.integers(0, SIDE - 20, 2)
        height, width = rng.integers(12, 40, 2)
        depth[top : top + height, left : left + width] = rng.uniform(1.0, 4.5)
    if number % 3 == 0:
        depth[:10] = np.inf
    grey = 230.0 / (0.6 + 0.4 * np.where(np.isinf(depth), 40.0, depth)) + rng.normal(0, 6, depth.shape)
    tint = rng.uniform(0.7, 1.0, 3)
    return (grey[..., None] * tint).clip(0, 255).astype(np.uint8), depth


def write_source(folder: Path, name: str, group: str, numbers: range, held_out: int = 0) -> None:
    """Shards and manifest of one data set; the last ``held_out`` frames are its ``val`` split."""
    rows: list[dict[str, Any]] = []
    shards: dict[str, Any] = {}
    last = numbers.stop - held_out
    for split, chosen in (("train", range(numbers.start, last)), ("val", range(last, numbers.stop))):
        split = "test" if group == "benchmark" else split
        if not chosen:
            continue
        shard = f"{split}-000000.tar"
        writer = ShardWriter(folder / shard)
        with writer:
            rows += [_add(writer, shard, split, name, group, number) for number in chosen]
        shards[shard] = {"sha256": writer.sha256, "bytes": writer.size, "frames": writer.frames}
    write_manifest(folder, [rows], shards)


def _add(writer: ShardWriter, shard: str, split: str, name: str, group: str, number: int) -> dict[str, Any]:
    rgb, depth = scene(number)
    key = f"{name}/scene{number}/frame"
    jpeg = encode_jpeg(rgb, 95)
    extra = {"pairs": pairs(depth, number), "scene": "indoor"} if group == "benchmark" else {}
    members = {"jpg": jpeg}
    if group == "synthetic":
        members["depth.zst"] = encode_metric_codes(metric_codes(depth))
    members["json"] = json.dumps({"key": key, "extra": extra}).encode()
    places = writer.add(key, members)
    image, text = places["jpg"], places["json"]
    target = places.get("depth.zst")
    finite = depth[np.isfinite(depth)]
    return {
        "key": key, "source": name, "group": group, "scene": f"scene{number}", "split": split, "shard": shard,
        "offset_image": image.offset, "size_image": image.size, "ext_image": "jpg",
        "offset_depth": target.offset if target else 0, "size_depth": target.size if target else 0,
        "offset_json": text.offset, "size_json": text.size,
        "width": SIDE, "height": SIDE, "metric": group == "synthetic",
        "fx": np.nan, "fy": np.nan, "cx": np.nan, "cy": np.nan,
        "sha256": hashlib.sha256(jpeg).hexdigest(), "pixel_sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
        "depth_min": float(finite.min()), "depth_median": float(np.median(finite)), "depth_max": float(finite.max()),
        "valid": 1.0, "sky": float(np.isinf(depth).mean()),
        "brightness": 100.0, "contrast": 50.0, "sharpness": 10.0, "licence": "own",
    }  # fmt: skip


def pairs(depth: NDArray[np.float32], number: int, count: int = 8) -> list[dict[str, Any]]:
    """Point pairs with clearly different depths."""
    rng = np.random.default_rng(1000 + number)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        one, two = rng.integers(0, SIDE, (2, 2)).tolist()
        near, far = float(depth[tuple(one)]), float(depth[tuple(two)])
        if max(near, far) > 1.5 * min(near, far):
            found.append({"point1": one, "point2": two, "closer": 1 if near < far else 2})
    return found


def write_labels(shards: Path, labels: Path, numbers: range, name: str) -> None:
    """Pseudo-labels as the labelling stage writes them, from the true depth."""
    rows = []
    with ShardWriter(labels / "train-000000.tar") as writer:
        for number in numbers:
            _, depth = scene(number)
            disparity = np.where(np.isinf(depth), 0, 1 / depth).astype(np.float32)
            data, meta = encode_disparity(disparity, 16, "png16")
            key = f"{name}/scene{number}/frame"
            place = writer.add(key, {"disp.png": data, "json": json.dumps(meta).encode()})["disp.png"]
            rows.append({
                "key": key, "shard": "train-000000.tar", "offset_label": place.offset, "size_label": place.size,
                "codec": meta["codec"], "bits": meta["bits"], "vmin": meta["min"], "vmax": meta["max"],
            })  # fmt: skip
    manifest = pq.read_table(shards / "manifest.parquet", columns=["key", "sha256"]).to_pandas()
    hashes = dict(zip(manifest["key"], manifest["sha256"], strict=True))
    table = [{**row, "image_sha256": hashes[row["key"]]} for row in rows]
    pq.write_table(pa.Table.from_pylist(table), labels / "manifest.parquet")


OPTIM = {"optimizer": "adamw", "encoder_lr": 5e-4, "decoder_lr": 1e-3, "clip_norm": 1.0, "schedule": "cosine"}
COMMON = {"size": "vitn", "start": "random", "steps": 6, "batch": 4, "crop": 28, "optim": OPTIM,
          "checkpoint": {"every_steps": 2, "evaluate_every": 3, "evaluate_frames": 4}}  # fmt: skip


def settings(**changes: Any) -> dict[str, Any]:
    """``params.yaml`` of the small project; ``changes`` replace top-level sections or are merged into them."""
    tree: dict[str, Any] = {
        "scale": "test",
        "seed": 0,
        "sources": {
            "rooms": {"reader": "hypersim", "path": "data/rooms", "group": "synthetic"},
            "snaps": {"reader": "image_folder", "path": "data/snaps", "group": "unlabelled"},
        },
        "benchmarks": {"da2k": {"reader": "da2k", "path": "data/da2k", "group": "benchmark"}},
        "compute": {"world_size": 1, "threads": 1, "precision": "fp32", "deepspeed": "infra/deepspeed/cpu.json"},
        "teacher": {**COMMON, "sources": ["rooms"]},
        "pseudo_label": {"sources": ["snaps"], "input_size": 28},
        "students": {"n": {**COMMON, "sources": ["snaps"], "loss": {"trim": 0.1}, "augment": {"cutmix": 0.5}}},
        "metric": {
            "near": {
                **COMMON,
                "start": "models/student-n",
                "sources": ["rooms"],
                "max_depth": 20.0,
                "loss": {"kind": "silog"},
            }
        },
        "evaluate": {"da2k": "da2k", "models": ["teacher"]},
        "register": {},
    }
    for section, change in changes.items():
        tree[section] = {**tree.get(section, {}), **change} if isinstance(change, dict) else change
    return tree


def make_project(root: Path, **changes: Any) -> Path:
    """A whole small project below ``root``; returns its ``params.yaml``."""
    shards = root / "artifacts" / "shards"
    write_source(shards / "synthetic" / "rooms", "rooms", "synthetic", range(0, 16), held_out=4)
    write_source(shards / "unlabelled" / "snaps", "snaps", "unlabelled", range(100, 112))
    write_labels(shards / "unlabelled" / "snaps", root / "artifacts" / "pseudo" / "snaps", range(100, 112), "snaps")
    write_source(shards / "benchmark" / "da2k", "da2k", "benchmark", range(200, 203))
    engine = root / "infra" / "deepspeed"
    engine.mkdir(parents=True)
    for stage in range(4):
        name = "cpu.json" if stage == 0 else f"zero{stage}.json"
        # Small buckets: by default each rank sets aside gigabytes for them.
        buckets = {"reduce_bucket_size": 10**6, "allgather_bucket_size": 10**6} if stage else {}
        (engine / name).write_text(json.dumps({"zero_optimization": {"stage": stage, **buckets}}))
    params = root / "params.yaml"
    params.write_text(yaml.safe_dump(settings(**changes)))
    return params
