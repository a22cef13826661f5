"""Labelling against the bare forward pass, against a plain loop with the Hugging Face pipeline, and over processes.

Protocol: a ViT-S with random weights, the same for all, at 518 short side. The photographs are views of the pictures
that scikit-image ships, 4:3, as JPEG in one shard for each worker. The ways take turns, ``--rounds`` times, and medians
of the rounds' rates are compared:

forward   the model alone, in the precision and batch of the labelling, on a batch that is already there
labelling what the stage does for one shard: read, check, decode, resize, label, measure, encode, write, receipt
pipeline  ``transformers.pipeline("depth-estimation")`` on decoded photographs one by one, its 8-bit map saved as PNG
two       two labelling processes with one thread each against one process with one thread (shards per second)

Stored labels are measured on the maps of a trained teacher, where there is one, and on harder ones (the photographs'
grey at 8/14 of 518 × 686, enlarged bilinearly): size, and largest error over the range. Memory is the peak resident set
of a process that labels few and many shards.

    python benchmarks/labelling.py [--photos 16] [--rounds 3] [--only forward,labelling,pipeline,two,labels,memory]
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from dav2.data import images
from dav2.data.store import depth_codec
from dav2.data.store.manifest import write_manifest
from dav2.data.store.shards import Place, ShardWriter
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.preprocess import network_shape, preprocess
from dav2.families.depth_anything.weights import save_directory
from dav2.families.directory import weights_digest
from dav2.families.loading import load
from dav2.pseudo_label import Labeller, LabelOptions, plan_shards
from dav2.pseudo_label.teacher import Teacher
from dav2.pseudo_label.workers import WorkerSetup, process_workers

HEIGHT, WIDTH = 480, 640
WAYS = ("forward", "labelling", "pipeline", "two", "labels", "memory")


def photographs(count: int) -> list[np.ndarray]:
    """Crops of scikit-image's colour pictures at 480 × 640."""
    import cv2
    from skimage import data

    pictures = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    random = np.random.default_rng(0)
    crops = []
    for index in range(count):
        picture = pictures[index % len(pictures)]
        height = int(random.uniform(0.6, 1.0) * min(picture.shape[0], picture.shape[1] * 3 // 4))
        width = height * 4 // 3
        top = int(random.integers(0, picture.shape[0] - height + 1))
        left = int(random.integers(0, picture.shape[1] - width + 1))
        crops.append(cv2.resize(picture[top : top + height, left : left + width], (WIDTH, HEIGHT)))
    return crops


def write_shards(folder: Path, pictures: list[np.ndarray], shards: int) -> Path:
    """``shards`` shards, each with all ``pictures``."""
    rows: list[dict[str, Any]] = []
    table = {}
    for number in range(shards):
        name = f"train-{number:06d}.tar"
        with ShardWriter(folder / name) as writer:
            for index, rgb in enumerate(pictures):
                data = images.encode_jpeg(rgb)
                key = f"photos/shard_{number}/view_{index:04d}"
                places = writer.add(key, {"jpg": data, "json": b"{}"})
                rows.append({"key": key, "split": "train", "shard": name, **row_of(data, rgb, places)})
        table[name] = {"sha256": writer.sha256, "bytes": writer.size, "frames": len(pictures)}
    write_manifest(folder, [rows], table)
    return folder


def row_of(data: bytes, rgb: np.ndarray, places: dict[str, Place]) -> dict[str, Any]:
    """The manifest row of a photograph, but for its names."""
    return {
        "offset_image": places["jpg"].offset,
        "size_image": places["jpg"].size,
        "offset_json": places["json"].offset,
        "size_json": places["json"].size,
        "size_depth": 0,
        "ext_image": "jpg",
        "height": rgb.shape[0],
        "width": rgb.shape[1],
        "metric": False,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


class Bench:
    """A teacher, photographs, and the ways to label them; each returns photographs per second."""

    def __init__(self, folder: Path, photos: int, batch: int) -> None:
        self.folder = folder
        self.pictures = photographs(photos)
        self.teacher_folder = save_directory(build("vits"), folder / "teacher")
        self.digest = weights_digest(self.teacher_folder)
        self.options = LabelOptions(batch=batch, codec="jpegls12", bits=12)
        self.source = write_shards(folder / "shards", self.pictures, 1)
        self.labeller = Labeller(Teacher.open(str(self.teacher_folder), self.options))
        self._runs = 0

    def forward(self) -> float:
        shape = network_shape(HEIGHT, WIDTH, self.options.input_size)
        inputs = torch.zeros(self.options.batch, 3, *shape)
        begun = time.perf_counter()
        for _ in range(max(1, len(self.pictures) // self.options.batch)):
            self.labeller.teacher(inputs, [""] * len(inputs)).wait()
        return len(self.pictures) / (time.perf_counter() - begun)

    def out(self) -> str:
        self._runs += 1
        return str(self.folder / f"out-{self._runs}")

    def labelling(self) -> float:
        (task,) = plan_shards(str(self.source), self.out(), self.digest, self.options)
        begun = time.perf_counter()
        self.labeller.label(task)
        return len(self.pictures) / (time.perf_counter() - begun)

    def pipeline(self) -> float:
        pipe = hugging_face_pipeline()
        from PIL import Image

        folder = Path(self.out())
        folder.mkdir()
        pictures = [Image.fromarray(picture) for picture in self.pictures]
        begun = time.perf_counter()
        for index, picture in enumerate(pictures):
            pipe(picture)["depth"].save(folder / f"{index}.png")
        return len(self.pictures) / (time.perf_counter() - begun)

    def over_processes(self, count: int) -> float:
        """Photographs per second of ``count`` one-threaded processes, each with a shard, once they are started."""
        setup = WorkerSetup(str(self.teacher_folder), self.options, threads=1)
        source = write_shards(self.folder / f"shards-{count}", self.pictures, 2 * count)
        tasks = plan_shards(str(source), self.out(), self.digest, self.options)
        with process_workers(setup, count) as pool, ThreadPoolExecutor(count) as threads:
            list(threads.map(pool.label, tasks[:count]))
            begun = time.perf_counter()
            list(threads.map(pool.label, tasks[count:]))
            return count * len(self.pictures) / (time.perf_counter() - begun)


def hugging_face_pipeline() -> Callable[[Any], Any]:
    """The usual way: a ViT-S of the same make with random weights behind ``transformers.pipeline``."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
        pipeline,
    )

    taps = ["stage3", "stage6", "stage9", "stage12"]
    backbone = Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_features=taps,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    processor = DPTImageProcessor(
        size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3
    )
    made = pipeline("depth-estimation", model=DepthAnythingForDepthEstimation(config).eval(), image_processor=processor)
    return made  # type: ignore[no-any-return]


def soft_grey(picture: np.ndarray) -> np.ndarray:
    """A map with more detail than depth: the photograph's grey, soft as the decoder makes everything."""
    import cv2

    planes = preprocess(picture, 518).mean(0)
    small = cv2.resize(planes, None, fx=8 / 14, fy=8 / 14, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, planes.shape[::-1], interpolation=cv2.INTER_LINEAR)


def stored_labels(maps: list[np.ndarray]) -> list[tuple[str, float, float]]:
    """(codec, median KiB, largest error over range) of maps stored as labels."""
    rows = []
    for codec, bits in (("png16", 16), ("jpegls12", 12), ("jpegls12", 10), ("jxl12", 12)):
        sizes, errors = [], []
        for label in maps:
            data, meta = depth_codec.encode_disparity(label, bits, codec)
            span = float(label.max() - label.min())
            errors.append(float(np.abs(depth_codec.decode_disparity(data, meta) - label).max()) / span)
            sizes.append(len(data) / 1024)
        rows.append((f"{codec}, {bits} bits", statistics.median(sizes), max(errors)))
    return rows


def teacher_maps(pictures: list[np.ndarray], teacher: Path) -> list[np.ndarray]:
    """What a trained teacher makes of the photographs at 518 short side."""
    model = load(teacher)
    device, dtype = next(model.parameters()).device, next(model.parameters()).dtype
    with torch.inference_mode():
        planes = [torch.from_numpy(preprocess(picture, 518))[None].to(device, dtype) for picture in pictures]
        return [model(image)[0].float().cpu().numpy() for image in planes]


def peak_memory(bench: Bench, shards: int) -> float:
    """Peak resident MiB of a process that labels ``shards`` shards at 140 px."""
    options = replace(bench.options, input_size=140)
    source = write_shards(bench.folder / f"memory-{shards}", bench.pictures, shards)
    program = (
        "from dav2.memory import peak_megabytes\n"
        "from dav2.pseudo_label import Labeller, LabelOptions, plan_shards\n"
        "from dav2.pseudo_label.teacher import Teacher\n"
        f"options = {options!r}\n"
        f"labeller = Labeller(Teacher.open({str(bench.teacher_folder)!r}, options))\n"
        f"for task in plan_shards({str(source)!r}, {bench.out()!r}, {bench.digest!r}, options): labeller.label(task)\n"
        "print(peak_megabytes())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)


def rates(bench: Bench, chosen: list[str], rounds: int) -> dict[str, float]:
    """Median rate of each chosen way; the ways take turns, after one turn each to warm up."""
    ways: dict[str, Callable[[], float]] = {
        "forward": bench.forward,
        "labelling": bench.labelling,
        "pipeline": bench.pipeline,
        "one process": lambda: bench.over_processes(1),
        "two processes": lambda: bench.over_processes(2),
    }
    wanted = [name for name in ways if name in chosen or ("process" in name and "two" in chosen)]
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for turn in range(rounds + 1):
        for name in wanted:
            rate = ways[name]()
            if turn:
                found[name].append(rate)
    return {name: statistics.median(values) for name, values in found.items()}


def show_rates(console: Console, rate: dict[str, float]) -> None:
    table = Table("way", "images/s", title=f"{torch.get_num_threads()} threads, {_device()}")
    for name, value in rate.items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)
    for name, other, bar in (
        ("labelling", "forward", 0.9),
        ("labelling", "pipeline", 2.0),
        ("two processes", "one process", 1.8),
    ):
        if name in rate and other in rate:
            console.print(f"{name} / {other}: {rate[name] / rate[other]:.2f}  (bar: {bar})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--teacher", type=Path, default=Path("artifacts/models/teacher"), help="trained, for 'labels'")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.photos, arguments.batch)
        if set(chosen) - {"labels", "memory"}:
            show_rates(console, rates(bench, chosen, arguments.rounds))
        if "labels" in chosen:
            kinds = {"soft grey": [soft_grey(picture) for picture in bench.pictures]}
            if (arguments.teacher / "config.json").exists():
                kinds[str(arguments.teacher)] = teacher_maps(bench.pictures, arguments.teacher)
            table = Table("maps", "codec", "median KiB", "largest error / range", title="Stored label, 518 × 686")
            for kind, maps in kinds.items():
                for codec, size, error in stored_labels(maps):
                    table.add_row(kind, codec, f"{size:.0f}", f"{error:.1e}")
            console.print(table)
        if "memory" in chosen:
            few, many = peak_memory(bench, 2), peak_memory(bench, 20)
            console.print(f"peak memory: {few:.0f} MiB for 2 shards, {many:.0f} MiB for 20 shards")


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


if __name__ == "__main__":
    main()
