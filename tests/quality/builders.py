"""Small real data sets: shards, manifests, labels and quarantine as ingestion and labelling leave them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dav2.data.frame import Frame
from dav2.data.store.depth_codec import encode_disparity, metric_codes
from dav2.data.store.manifest import write_manifest, write_quarantine
from dav2.data.store.shards import ShardWriter, frame_members
from dav2.params import Params

Change = Callable[[dict[str, Any]], None]


def write_source(
    root: Path, params: Params, name: str, frames: int, *, change: Change | None = None, quarantined: int = 0
) -> list[dict[str, Any]]:
    """One ingested source; ``change`` may edit each manifest row before it is written."""
    group, directory = params.data_sets[name].group, root / params.shards(name)
    generator = np.random.default_rng(len(name))
    labelled = group == "synthetic" or name in ("nyu", "kitti", "middlebury")
    rows = []
    with ShardWriter(directory / "train-000000.tar") as writer:
        for index in range(frames):
            depth = generator.uniform(1.0, 9.0, (48, 64)).astype(np.float32) if labelled else None
            rgb = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            frame = Frame(f"{name}/scene_{index // 10}/{index:04d}", rgb, depth, metric=name != "blendedmvs")
            codes = None if depth is None else metric_codes(depth)
            members = frame_members(frame, codes, {"extra": {}}, lossless=False, quality=90)
            row = _row(frame, name, group, members, writer.add(frame.key, members))
            if change:
                change(row)
            rows.append(row)
    shards = {"train-000000.tar": {"sha256": writer.sha256, "bytes": writer.size, "frames": frames}}
    write_manifest(directory, [rows], shards)
    reason = {"scene": "s", "path": "raw/broken.jpg", "reason": "truncated"}
    write_quarantine(directory, [[{"key": f"{name}/s/q{i}", **reason} for i in range(quarantined)]])
    return rows


def _row(frame: Frame, name: str, group: str, members: dict[str, bytes], places: dict[str, Any]) -> dict[str, Any]:
    depth = frame.depth
    stored = places.get("depth.zst")
    grey = frame.rgb.mean(axis=2)
    unknown = float("nan")
    return {
        "key": frame.key,
        "source": name,
        "group": group,
        "scene": frame.key.split("/")[1],
        "split": "test" if group == "benchmark" else "train",
        "shard": "train-000000.tar",
        "offset_image": places["jpg"].offset,
        "size_image": places["jpg"].size,
        "ext_image": "jpg",
        "offset_depth": stored.offset if stored else 0,
        "size_depth": stored.size if stored else 0,
        "offset_json": places["json"].offset,
        "size_json": places["json"].size,
        "width": frame.rgb.shape[1],
        "height": frame.rgb.shape[0],
        "metric": frame.metric,
        **dict.fromkeys(("fx", "fy", "cx", "cy"), unknown),
        "sha256": hashlib.sha256(members["jpg"]).hexdigest(),
        "pixel_sha256": hashlib.sha256(frame.rgb.tobytes()).hexdigest(),
        "depth_min": unknown if depth is None else float(depth.min()),
        "depth_median": unknown if depth is None else float(np.median(depth)),
        "depth_max": unknown if depth is None else float(depth.max()),
        "valid": unknown if depth is None else 1.0,
        "sky": unknown if depth is None else 0.0,
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "sharpness": 100.0,
        "licence": "CC0-1.0",
    }


def write_labels(
    root: Path, params: Params, name: str, rows: list[dict[str, Any]], change: Change | None = None
) -> None:
    """Pseudo-labels of the frames in ``rows``."""
    directory = root / params.labels(name)
    generator = np.random.default_rng(1)
    labels = []
    with ShardWriter(directory / "train-000000.tar") as writer:
        for row in rows:
            disparity = generator.uniform(0.1, 1.0, (48, 64)).astype(np.float32)
            data, meta = encode_disparity(disparity)
            place = writer.add(row["key"], {"disp.png": data, "json": b"{}"})["disp.png"]
            label = {
                "key": row["key"],
                "shard": "train-000000.tar",
                "offset_label": place.offset,
                "size_label": place.size,
                "codec": meta["codec"],
                "bits": meta["bits"],
                "vmin": meta["min"],
                "vmax": meta["max"],
                "height": 48,
                "width": 64,
                "teacher": "f" * 64,
                "image_sha256": row["sha256"],
                "range": 1.6,
                "saturated": 0.001,
                "flip_agreement": 0.9,
                "sharpness": 1.5,
            }
            if change:
                change(label)
            labels.append(label)
    pd.DataFrame(labels).to_parquet(directory / "manifest.parquet")


def write_group(root: Path, params: Params, group: str, frames: int = 30, change: Change | None = None) -> None:
    """Every source of a group; ``change`` edits the rows of all of them."""
    for name in params.group(group):
        write_source(root, params, name, frames, change=change)
