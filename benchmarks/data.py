"""How fast data flows, as ratios against the named alternative in the same run, the two taking turns.

Protocol: photographs of 1.5 megapixels (between Hypersim's and SA-1B's) and their depth maps are made in a temporary
folder and are in the page cache. Every contestant runs once per round, in alternating order; figures are medians. All
keep the memory that they free (``dav2.memory``), as ingestion and training do.

* ``loader``: 518-pixel crops from shards, two decoding threads, against a plain folder data set (one file per image and
  depth map, OpenCV, the same resize, crop, flip and normalisation) under torch's DataLoader with two processes.
* ``s3``: one pass over shards of a local S3 server (moto, in a process of its own on the same cores) against the local
  shards, from opening the data set to the last batch, on three times as many frames. Every byte is fetched once. The
  server takes processor time from the loader here; what the loader itself needs is given too.
* ``ingest``: ingestion in one process against decoding and hashing the same files alone, for photographs and for
  frames with depth, which also has to be coded, compressed and judged.
* ``memory``: most resident memory of ingesting ``--frames`` small photographs, and a fiftieth of them.
* ``manifest``: seconds to validate a manifest of a million rows, and to start the loader on it.

    python benchmarks/data.py [loader s3 ingest memory manifest] [--rounds 5] [--frames 50000]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console

from dav2.data.feed import transforms
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.feed.targets import MEAN, STD
from dav2.data.images import decode
from dav2.data.store.ingest import ingest
from dav2.data.store.manifest import write_manifest
from dav2.memory import keep_freed_memory
from dav2.params import AugmentParams, IngestParams, SourceParams, load

CROP, BATCH, WORKERS = 518, 8, 2
HEIGHT, WIDTH, FRAMES = 1080, 1440, 96
ROOT = Path(__file__).parents[1]


def write_vkitti2(folder: Path, frames: int = FRAMES) -> None:
    """Noisy blobs with depth, in the layout of Virtual KITTI 2; the JPEGs have some 2 bits per pixel."""
    rng = np.random.default_rng(0)
    camera = folder / "Scene01/clone/frames"
    for kind in ("rgb", "depth"):
        (camera / kind / "Camera_0").mkdir(parents=True)
    for number in range(frames):
        coarse = rng.integers(0, 256, (54, 72, 3)).astype(np.uint8)
        picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        picture += rng.integers(-12, 13, picture.shape, dtype=np.int16)
        cv2.imwrite(str(camera / f"rgb/Camera_0/rgb_{number:05d}.jpg"), picture.clip(0, 255).astype(np.uint8))
        depth = cv2.resize(rng.integers(200, 9000, (27, 36)).astype(np.uint16), (WIDTH, HEIGHT))
        cv2.imwrite(str(camera / f"depth/Camera_0/depth_{number:05d}.png"), depth)


class FolderData(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What is usually written first: one image file and one depth file per sample."""

    def __init__(self, folder: Path) -> None:
        self.pictures = sorted(map(str, folder.rglob("rgb_*.jpg")))

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        picture = self.pictures[index]
        rgb = cv2.cvtColor(cv2.imread(picture), cv2.COLOR_BGR2RGB)
        map_ = picture.replace("rgb/Camera_0/rgb_", "depth/Camera_0/depth_").replace(".jpg", ".png")
        depth = cv2.imread(map_, cv2.IMREAD_UNCHANGED).astype(np.float32) / 100
        g = transforms.draw_geometry(np.random.default_rng(index), rgb.shape[:2], (CROP, CROP), (1.0, 1.0), 0.5)
        rgb = cv2.resize(rgb, (g.width, g.height), interpolation=cv2.INTER_AREA)
        depth = cv2.resize(depth, (g.width, g.height), interpolation=cv2.INTER_NEAREST)
        window = slice(g.top, g.top + CROP), slice(g.left, g.left + CROP)
        rgb, disparity = rgb[window], 1 / depth[window]
        if g.flip:
            rgb, disparity = rgb[:, ::-1], disparity[:, ::-1]
        image = (rgb.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(disparity.copy())


def folder_rate(raw: Path) -> float:
    """Frames per second of one pass, the start of its processes not counted."""
    loader = torch.utils.data.DataLoader(FolderData(raw), BATCH, shuffle=True, num_workers=WORKERS)
    stream = iter(loader)
    next(stream)
    begin, batches = time.perf_counter(), 0
    for _ in stream:
        batches += 1
    return batches * BATCH / (time.perf_counter() - begin)


def shard_rate(shards: str) -> float:
    """Frames per second of one pass over shards, nothing kept from batch to batch."""
    settings = {"crop": CROP, "batch": BATCH, "seed": 0, "augment": AugmentParams(flip=0.5)}
    data = TrainingData([Part(shards)], workers=WORKERS, cache_mb=0, **settings)
    stream = data.iterate()
    next(stream)
    batches, begin = FRAMES // BATCH - 1, time.perf_counter()
    for _ in range(batches):
        next(stream)
    elapsed = time.perf_counter() - begin
    stream.close()
    return batches * BATCH / elapsed


def pass_rate(shards: str, spent: list[float]) -> float:
    """Frames per second of one whole pass, with the opening of the data set and the first fetches.

    Appends to ``spent`` the milliseconds of processor time that this process, without the server, took for a frame.
    """
    begin, busy = time.perf_counter(), time.process_time()
    settings = {"crop": CROP, "batch": BATCH, "seed": 0, "augment": AugmentParams(flip=0.5)}
    data = TrainingData([Part(shards)], workers=WORKERS, cache_mb=0, **settings)
    stream = data.iterate()
    for _ in range(len(data) // BATCH):
        next(stream)
    elapsed = time.perf_counter() - begin
    stream.close()
    spent.append(1000 * (time.process_time() - busy) / len(data))
    return len(data) / elapsed


def ingest_rate(source: SourceParams, scratch: Path) -> float:
    out = Path(tempfile.mkdtemp(dir=scratch))
    begin = time.perf_counter()
    ingest(source.reader, source, IngestParams(workers=1), out)
    return FRAMES / (time.perf_counter() - begin)


def decode_rate(raw: Path, depth: bool) -> float:
    """Decode image (and depth), and hash the file and the pixels: what ingestion cannot do without."""
    begin = time.perf_counter()
    for picture in sorted(raw.rglob("rgb_*.jpg")):
        data = picture.read_bytes()
        pixels = decode(data, picture.name).rgb
        hashlib.sha256(data).digest()
        hashlib.sha256(pixels.data).digest()
        if depth:
            map_ = str(picture).replace("rgb/Camera_0/rgb_", "depth/Camera_0/depth_").replace(".jpg", ".png")
            cv2.imread(map_, cv2.IMREAD_UNCHANGED)
    return FRAMES / (time.perf_counter() - begin)


def take_turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of each contestant over rounds of alternating order."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants) if number % 2 == 0 else reversed(contestants):
            found[name].append(contestants[name]())
    return {name: statistics.median(values) for name, values in found.items()}


@contextmanager
def bucket() -> Iterator[str]:
    """A bucket on a moto server."""
    import s3fs

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        s3fs.S3FileSystem().mkdir("bench")
        try:
            yield "s3://bench"
        finally:
            server.kill()


INGEST = """
import sys
from dav2.data.store.ingest import ingest
from dav2.memory import peak_megabytes
from dav2.params import IngestParams, SourceParams
source = SourceParams(reader="image_folder", path=sys.argv[1], group="unlabelled")
print(ingest("views", source, IngestParams(workers=1), sys.argv[2]).frames)
print(peak_megabytes())
"""


def ingest_memory(scratch: Path, frames: int) -> float:
    """Most resident MB of a fresh process that ingests ``frames`` photographs of 64 × 48 pixels."""
    folder = scratch / f"small{frames}"
    rng = np.random.default_rng(0)
    for number in range(frames):
        place = folder / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        picture = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), (64, 48))
        cv2.imwrite(str(place / f"{number:06d}.jpg"), picture)
    command = [sys.executable, "-c", INGEST, str(folder), str(scratch / f"out{frames}")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout.split()[1])


def million_rows(root: Path) -> tuple[float, float]:
    """Seconds to validate a manifest of a million photographs, and to start the loader on as many frames with depth."""
    from dav2.quality import validate

    params = load(ROOT / "params.yaml")
    name = params.group("unlabelled")[0]
    params = params.model_copy(update={"sources": {name: params.sources[name]}})
    shards = {f"train-{n:06d}.tar": {"sha256": "0", "bytes": 1, "frames": 10_000} for n in range(100)}
    rng = np.random.default_rng(0)
    write_manifest(root / params.shards(name), (_rows(name, n, 10_000, rng) for n in range(100)), shards)
    begin = time.perf_counter()
    validate("unlabelled", root, params, root / "quality")
    validated = time.perf_counter() - begin
    begin = time.perf_counter()
    part = Part(str(root / params.shards(name)))
    TrainingData([part], crop=CROP, batch=BATCH, seed=0, augment=AugmentParams())
    return validated, time.perf_counter() - begin


def _rows(name: str, shard: int, count: int, rng: np.random.Generator) -> list[dict[str, object]]:
    places = {"offset_image": 512, "size_image": 200_000, "offset_depth": 201_000, "size_depth": 100_000}
    looks = dict.fromkeys(("depth_min", "depth_median", "depth_max"), 1.0) | {"valid": 1.0, "sky": 0.1}
    fixed = places | looks | {"offset_json": 0, "size_json": 300, "width": 640, "height": 480, "metric": True}
    fixed |= dict.fromkeys(("fx", "fy", "cx", "cy"), float("nan")) | {"licence": "CC0-1.0", "ext_image": "jpg"}
    fixed |= {"source": name, "group": "unlabelled", "scene": "all", "split": "train"}
    fixed |= {"brightness": 120.0, "contrast": 50.0, "sharpness": 300.0, "shard": f"train-{shard:06d}.tar"}
    hashes = [rng.bytes(32).hex() for _ in range(count)]
    return [
        fixed | {"key": f"{name}/{shard:03d}/{number:05d}", "sha256": found, "pixel_sha256": found}
        for number, found in enumerate(hashes)
    ]


def run(parts: list[str], rounds: int, frames: int) -> None:
    say = Console(highlight=False).print
    say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {rounds} rounds, {HEIGHT} × {WIDTH} pixels")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        raw, shards = scratch / "raw", scratch / "shards"
        if {"loader", "s3", "ingest"} & set(parts):
            write_vkitti2(raw)
            source = SourceParams(reader="vkitti2", path=str(raw), group="synthetic")
            ingest("vkitti2", source, IngestParams(workers=1, shard_frames=32), shards)
        if "loader" in parts:
            found = take_turns({"shards": lambda: shard_rate(str(shards)), "folder": lambda: folder_rate(raw)}, rounds)
            say(f"loader: {found} frames/s; {found['shards'] / found['folder']:.2f} × (bar 2)")
        if "s3" in parts:
            with bucket() as remote:
                near, far = str(scratch / "near"), f"{remote}/shards"
                write_vkitti2(scratch / "more", 3 * FRAMES)
                source = SourceParams(reader="vkitti2", path=str(scratch / "more"), group="synthetic")
                for out in (near, far):
                    ingest("vkitti2", source, IngestParams(workers=1, shard_frames=32), out)
                spent: dict[str, list[float]] = {far: [], near: []}
                contestants = {
                    "s3": lambda: pass_rate(far, spent[far]),
                    "local": lambda: pass_rate(near, spent[near]),
                }
                found = take_turns(contestants, rounds)
            busy = {name: statistics.median(spent[place]) for name, place in (("s3", far), ("local", near))}
            say(f"s3: {found} frames/s; {found['s3'] / found['local']:.2f} of local (bar 0.9)")
            say(f"    the loader's own processor time, ms a frame: {busy}; {busy['local'] / busy['s3']:.2f} of local")
        if "ingest" in parts:
            pictures = str(raw / "Scene01/clone/frames/rgb")
            photos = SourceParams(reader="image_folder", path=pictures, group="unlabelled")
            frames_ = SourceParams(reader="vkitti2", path=str(raw), group="synthetic")
            for name, source in (("photographs", photos), ("frames with depth", frames_)):
                contestants = {
                    "ingest": lambda source=source: ingest_rate(source, scratch),
                    "decode": lambda depth=source is frames_: decode_rate(raw, depth),
                }
                found = take_turns(contestants, rounds)
                share = found["ingest"] / found["decode"]
                say(f"ingest of {name}: {found} frames/s; {share:.2f} of decoding and hashing alone (bar 0.8)")
        if "memory" in parts:
            few, many = ingest_memory(scratch, frames // 50), ingest_memory(scratch, frames)
            say(f"memory: {few:.0f} MB for {frames // 50} frames, {many:.0f} MB for {frames}")
        if "manifest" in parts:
            validated, started = million_rows(scratch / "root")
            say(f"manifest of a million rows: validated in {validated:.0f} s (bar 60), loader ready in {started:.1f} s")


if __name__ == "__main__":
    # As training is launched; the processes of torch's DataLoader inherit it.
    keep_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["loader", "s3", "ingest", "memory", "manifest"]
    parser.add_argument("parts", nargs="*", default=every, help="which measurements")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=50_000)
    chosen = parser.parse_args()
    run(chosen.parts, chosen.rounds, chosen.frames)
