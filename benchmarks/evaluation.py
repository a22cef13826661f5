"""Share of scoring that is spent in the forward pass, and the cost of the metrics of one image.

    python -m benchmarks.evaluation [--size vits] [--frames 24] [--device cpu] [--batch 8]

Protocol. Random 480 × 640 frames in DIODE's layout are ingested and scored with a model of random weights at its native
input size. The share is the time inside ``predict`` over the time of the whole pass: reading, decoding, preparing,
predicting, fitting, measuring. The metrics are timed on one thread, median of 30, each turn followed by the same
definitions written plainly in float64 NumPy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dav2 import layout
from dav2.data.images import encode_png
from dav2.data.store.ingest import ingest
from dav2.evaluation.passes import Passes
from dav2.evaluation.predictors import judged_model
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.params import IngestParams, SourceParams, load
from dav2.scores.alignment import least_squares
from dav2.scores.depth import depth_metrics
from dav2.scores.protocols import PROTOCOLS

HEIGHT, WIDTH = 480, 640
PIXELS = (HEIGHT, WIDTH)


def write_project(root: Path, frames: int, size: str) -> None:
    """A DIODE folder, its shards, and a model directory."""
    rng = np.random.default_rng(0)
    folder = root / "data" / "diode" / "val" / "indoors" / "scene_00000" / "scan_00000"
    folder.mkdir(parents=True)
    for number in range(frames):
        stem = f"00000_00000_indoors_{number:03d}_000"
        depth = rng.uniform(1, 9, (HEIGHT, 1, 1)) + rng.random((HEIGHT, WIDTH, 1))
        (folder / f"{stem}.png").write_bytes(encode_png(rng.integers(0, 255, (*PIXELS, 3), dtype=np.uint8)))
        np.save(folder / f"{stem}_depth.npy", depth.astype(np.float32))
        np.save(folder / f"{stem}_depth_mask.npy", np.ones(PIXELS, np.float32))
    source = SourceParams(reader="diode", path=str(root / "data" / "diode"), group="benchmark")
    ingest("diode", source, IngestParams(), root / "artifacts" / "shards" / "benchmark" / "diode")
    save_directory(build(size), root / "artifacts" / "models" / size)


def forward_share(root: Path, size: str, device: str | None, batch: int) -> tuple[float, float]:
    """Share of a scoring pass spent in the forward pass, and its frames per second."""
    settings = load()
    source = SourceParams(reader="diode", path="data/diode", group="benchmark")
    params = settings.model_copy(update={"benchmarks": {"diode": source}})
    predictor = judged_model(layout.model(root, size), device)
    predictor.latency_ms(2)
    passes = Passes(params, root, predictor, batch, None, [])
    before, start = predictor.seconds, time.perf_counter()
    protocol = PROTOCOLS["da-v2-diode"]
    result = passes.judge("diode", [protocol], passes.read("diode"))[protocol.name]
    elapsed = time.perf_counter() - start
    return (predictor.seconds - before) / elapsed, result.scored / elapsed


def plain_metrics(p: NDArray[np.float64], d: NDArray[np.float64]) -> list[float]:
    """The ten metrics in float64, one expression each, over gathered pixels."""
    e, ratio = np.log(p) - np.log(d), np.maximum(p / d, d / p)
    values = [np.mean(np.abs(p - d) / d), np.mean((p - d) ** 2 / d), np.sqrt(np.mean((p - d) ** 2))]
    values += [np.sqrt(np.mean(e**2)), np.mean(np.abs(np.log10(p) - np.log10(d)))]
    values += [np.mean(ratio < 1.25**k) for k in (1, 2, 3)]
    values += [100 * np.sqrt(np.mean(e**2) - np.mean(e) ** 2), np.sqrt(np.mean((1 / p - 1 / d) ** 2))]
    return [float(value) for value in values]


def median_ms(functions: list[Callable[[], object]], repeats: int = 30) -> list[float]:
    """Median milliseconds of each function, their turns interleaved."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 2):
        for function, found in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            found.append((time.perf_counter() - start) * 1000)
    return [float(np.median(found[2:])) for found in times]


def metric_cost() -> list[float]:
    """Milliseconds of our metrics, our alignment, and the plain metrics on one 480 × 640 pair, one thread."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    p, d = (0.5 + 9 * torch.rand(PIXELS, generator=generator) for _ in range(2))
    mask = torch.rand(PIXELS, generator=generator) < 0.9

    def plain() -> object:
        inside = mask.numpy()
        return plain_metrics(p.numpy()[inside].astype(np.float64), d.numpy()[inside].astype(np.float64))

    return median_ms([lambda: depth_metrics(p, d, mask), lambda: least_squares(p, d, mask), plain])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vits")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device")
    arguments = parser.parse_args()
    print(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), arguments.frames, arguments.size)
        share, rate = forward_share(Path(folder), arguments.size, arguments.device, arguments.batch)
    threads = torch.get_num_threads()
    print(f"forward pass: {share:.1%} of scoring ({arguments.size}, {rate:.2f} frames/s, {threads} threads)")
    ours, fit, plain = metric_cost()
    print(f"metrics {ours:.1f} ms, alignment {fit:.1f} ms, plain float64 metrics {plain:.1f} ms: {plain / ours:.1f} x")


if __name__ == "__main__":
    main()
