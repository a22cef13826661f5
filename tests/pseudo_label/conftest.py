"""A small source of photographs in shards, and a small teacher, both the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dav2.data.images import encode_jpeg
from dav2.data.store.manifest import write_manifest
from dav2.data.store.shards import ShardWriter
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.families.directory import weights_digest
from dav2.pseudo_label import LabelOptions
from dav2.pseudo_label.teacher import Teacher

OPTIONS = LabelOptions(input_size=56, precision="fp32", batch=3)
SHAPES = [(60, 80), (80, 60), (64, 64)]


def photograph(seed: int) -> np.ndarray:
    """A soft random picture in one of three shapes, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)
    height, width = SHAPES[seed % len(SHAPES)]
    coarse = random.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, -(-height // 8), 0), -(-width // 8), 1)[:height, :width].copy()


def write_shards(folder: Path, shards: int = 3, frames: int = 7, first: int = 0) -> Path:
    """A folder of image shards with a manifest, as ingestion leaves it."""
    rows: list[dict[str, Any]] = []
    table: dict[str, dict[str, Any]] = {}
    for number in range(shards):
        name = f"train-{number:06d}.tar"
        with ShardWriter(folder / name) as writer:
            for index in range(frames):
                seed = first + number * frames + index
                rows.append(_add(writer, name, seed))
        table[name] = {"sha256": writer.sha256, "bytes": writer.size, "frames": frames}
    write_manifest(folder, [rows], table)
    return folder


def _add(writer: ShardWriter, shard: str, seed: int) -> dict[str, Any]:
    rgb = photograph(seed)
    key, data = f"photos/scene_{seed % 5}/view_{seed:04d}", encode_jpeg(rgb, 95)
    places = writer.add(key, {"jpg": data, "json": b"{}"})
    return {
        "key": key,
        "source": "photos",
        "group": "unlabelled",
        "split": "train",
        "shard": shard,
        "offset_image": places["jpg"].offset,
        "size_image": places["jpg"].size,
        "offset_json": places["json"].offset,
        "size_json": places["json"].size,
        "size_depth": 0,
        "ext_image": "jpg",
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "metric": False,
        **{name: float("nan") for name in ("fx", "fy", "cx", "cy")},
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixel_sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
    }


def save_teacher(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    return save_directory(build("vitn"), folder)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def digest(teacher_folder: Path) -> str:
    return weights_digest(teacher_folder)


@pytest.fixture(scope="session")
def open_teacher(teacher_folder: Path) -> Callable[[LabelOptions], Teacher]:
    return lambda options: Teacher.open(str(teacher_folder), options, "cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")
