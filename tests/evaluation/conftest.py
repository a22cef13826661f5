"""A tiny project: benchmarks of a few rendered frames as real shards, and random models as real model directories."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dav2 import layout
from dav2.data.frame import Frame
from dav2.data.images import encode_png
from dav2.data.store.depth_codec import encode_metric_codes, metric_codes
from dav2.data.store.ingest.statistics import depth_statistics, image_statistics, pixel_hash
from dav2.data.store.manifest import write_manifest, write_quarantine
from dav2.data.store.shards import ShardWriter
from dav2.evaluation.baselines import BASELINES
from dav2.evaluation.evaluate import evaluate_model
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.params import Params, load
from dav2.report import write_report
from tests.documents import evaluation_line, step_line, verdict, write_journal

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
KINDS = ("indoor", "outdoor", "aerial")


def slope(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured floor that recedes upwards with a nearer box on it: RGB and depth in metres."""
    rng = np.random.default_rng(seed)
    depth = np.linspace(9, 2, height)[:, None].repeat(width, 1)
    top, left = rng.integers(height // 4, height // 2), rng.integers(4, width // 2)
    depth[top : top + height // 4, left : left + width // 4] = 1.5
    shade = np.clip(255 / depth, 0, 255)[..., None] * rng.uniform(0.5, 1, 3)
    rgb = np.clip(shade + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    return rgb, depth.astype(np.float32)


def write_shards(folder: Path, frames: Sequence[Frame], group: str, licence: str = "CC0-1.0") -> None:
    """Frames as one shard with its manifest."""
    source, rows = folder.name, []
    with ShardWriter(folder / "test-000000.tar") as writer:
        for frame in frames:
            image = encode_png(frame.rgb)
            members = {"png": image}
            if frame.depth is not None:
                members["depth.zst"] = encode_metric_codes(metric_codes(frame.depth))
            members["json"] = json.dumps({"extra": frame.extra}).encode()
            places = writer.add(frame.key, members)
            row: dict[str, Any] = {"key": frame.key, "source": source, "group": group, "scene": "s", "split": "test"}
            row |= {"shard": "test-000000.tar", "ext_image": "png", "metric": frame.metric, "licence": licence}
            row |= {"height": frame.rgb.shape[0], "width": frame.rgb.shape[1]}
            row |= dict.fromkeys(("fx", "fy", "cx", "cy"), float("nan"))
            row |= {"sha256": hashlib.sha256(image).hexdigest(), "pixel_sha256": pixel_hash(frame.rgb)}
            codes = None if frame.depth is None else metric_codes(frame.depth)
            row |= depth_statistics(codes) | image_statistics(frame.rgb)
            for name, field in (("image", "png"), ("depth", "depth.zst"), ("json", "json")):
                place = places.get(field)
                row[f"offset_{name}"], row[f"size_{name}"] = (place.offset, place.size) if place else (0, 0)
            rows.append(row)
    write_manifest(folder, [rows], {"test-000000.tar": {"sha256": writer.sha256, "bytes": 1, "frames": len(rows)}})
    write_quarantine(folder, [[]])


def da2k_frames(count: int = 6) -> list[Frame]:
    """Images of two sizes whose pairs compare a near floor point with a far one."""
    frames = []
    for number in range(count):
        height, width = ((60, 80), (48, 90))[number % 2]
        rgb, _ = slope(height, width, number)
        near, far = [height - 2, 3 + number], [2, 3 + number]
        pairs = [
            {"point1": near, "point2": far, "closer": 1},
            {"point1": far, "point2": [height - 5, width - 4], "closer": 2},
        ]
        kind = KINDS[number % len(KINDS)]
        frames.append(Frame(f"da2k/{kind}/image{number}", rgb, extra={"pairs": pairs, "scene": kind}))
    return frames


def depth_frames(source: str, count: int, metric: bool = True) -> list[Frame]:
    frames = []
    for number in range(count):
        rgb, depth = slope(48, 64, 100 + number)
        depth[:2], depth[:, :2] = np.inf, np.nan
        frames.append(Frame(f"{source}/room/f{number}", rgb, depth, metric=metric))
    return frames


def tiny_params(**evaluate: Any) -> Params:
    """The sample settings, with the scored sets of the tiny project."""
    values = load(ROOT / "params.yaml").model_dump(mode="json", by_alias=True)
    values["evaluate"] = {
        "da2k": "da2k",
        "models": ["teacher", "student-vitn", "metric-indoor"],
        "bootstrap": 200,
        "benchmarks": {
            "nyu": {"source": "nyu", "protocol": "da-v2-nyu"},
            "edges": {"source": "nyu", "protocol": "da-v2-edges"},
            "middlebury": {"source": "middlebury", "protocol": "da-v2-middlebury"},
            "nyu-metric": {"source": "nyu", "protocol": "metric-nyu", "kind": "metric", "models": "indoor"},
        },
        **evaluate,
    }
    return Params.model_validate(values)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project, made once."""
    root = tmp_path_factory.mktemp("project")
    shards = root / "artifacts" / "shards" / "benchmark"
    write_shards(shards / "da2k", da2k_frames(), "benchmark")
    write_shards(shards / "nyu", depth_frames("nyu", 3), "benchmark")
    write_shards(shards / "middlebury", depth_frames("middlebury", 1, metric=False), "benchmark")
    for seed, (run, metres) in enumerate({"teacher": None, "student-vitn": None, "metric-indoor": 20.0}.items()):
        torch.manual_seed(seed)
        save_directory(build("vitn", metres), root / "artifacts" / "models" / run, f"# {run}\n")
    return root


def journal(root: Path, run: str) -> None:
    """Training journal of a finished run."""
    skipped = {"skipped_update": True, "suspects": ["irs/office/1"]}
    steps = [step_line(n, None if n == 7 else 1 / n, **(skipped if n == 7 else {})) for n in range(1, 41)]
    evaluations = [evaluation_line(n, val_loss=1 / n, da2k=0.5 + n / 100) for n in (20, 40)]
    write_journal(layout.training(root, run), steps, evaluations)


@pytest.fixture(scope="session")
def scored(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with everything that a report shows, scores included."""
    root = Path(shutil.copytree(built, tmp_path_factory.mktemp("scored") / "project"))
    params = tiny_params(robustness=["dark"], resolutions=[2.0])
    photographs = [Frame(f"photos/walk/p{n}", slope(90, 120, n)[0]) for n in range(5)]
    write_shards(root / params.shards("photos"), photographs, "unlabelled")
    for run in params.evaluate.models:
        journal(root, run)
    docs = root / "artifacts" / "quality" / "benchmark" / "docs"
    docs.mkdir(parents=True)
    (docs / "index.html").write_text("<!doctype html><title>Data Docs</title>")
    verdict("benchmark").write(docs.parent / "result.json")
    for model in (*params.evaluate.models, *BASELINES):
        evaluate_model(model, params, root)
    return root


@pytest.fixture(scope="session")
def reports(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the tiny project in a folder of its own, as if only ``reports/`` had been copied."""
    return write_report(tiny_params(), scored, tmp_path_factory.mktemp("copied") / "reports").parent


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of the tiny project that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "project"))
