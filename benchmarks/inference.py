"""How fast a prediction is, against ``transformers`` and ONNX Runtime with the same random weights.

Protocol: the contestants take turns in every round, in alternating order; figures are medians over the rounds after
one round of warming up. ``ours`` is timed through ``infer_image`` with resizing, normalisation and the conversion
back; the others get a ready tensor and are timed for the network alone, which favours them. ``ours fp32`` is
``dav2.load`` with ``dtype="fp32"`` and so the packed form of :mod:`dav2.families.depth_anything.packed`; ``ours
default`` is what ``dav2.load`` chooses, the same where the processor has no bfloat16 units. Contestants in bfloat16
are left out there, with a line that says so. On a machine that others use too, read the ratio of processor time (all
threads together) rather than of latency; it is the median over the rounds of the ratio within one round.

A processor with AVX2 alone is imitated on any other by setting, before the process starts,
``ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2``. ONNX Runtime does not heed these. The
heading of the table says which instructions PyTorch uses; ``OMP_NUM_THREADS`` sets the threads.

* ``speed``: ViT-S at 518 × 518: latency of one image, images per second in batches of four, largest difference from
  ``transformers`` in float32 relative to its largest value, and most memory after three single predictions. Every
  contestant has a process of its own, since ``dav2.load`` changes how its process keeps memory, which would serve the
  others too (``--shared`` lets it: then all of them get that setting).
* ``parity``: largest difference from ``transformers`` in float32 relative to its largest value, for random weights in
  which every layer matters. At shapes other than 518 × 518 the two resize the positional embedding by different rules
  (ours is that of the original code), so there the table is the same everywhere; the last column is what the two rules
  make of a table that is not.
* ``folder``: ``dav2 predict`` on 50 photographs of mixed sizes against the Hugging Face depth-estimation pipeline on
  the same files, both with the model loaded, both writing a PNG for each.
* ``decisions``: share of the sample's DA-2K pairs that trained models decide alike in their default precision and in
  float32.

    python benchmarks/inference.py [speed parity folder decisions] [--rounds 7] [--shared] [--models FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from dav2 import machine
from dav2.families.depth_anything.export import export_onnx
from dav2.families.depth_anything.foreign import save_hugging_face
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.preprocess import preprocess
from dav2.families.depth_anything.weights import save_directory
from dav2.families.loading import load
from dav2.memory import keep_freed_memory, peak_megabytes

SIDE, BATCH, PHOTOGRAPHS = 518, 4, 50
SIZES_OF_PHOTOGRAPHS = ((480, 640), (640, 480), (768, 1024), (600, 800), (1080, 1920))
Contestant = Callable[[NDArray[np.uint8], torch.Tensor], NDArray[np.float32]]


def make_weights(folder: Path) -> None:
    """A random ViT-S as a model directory, a Hugging Face folder and an ONNX file."""
    torch.manual_seed(0)
    model = build("vits").eval()
    save_directory(model, folder / "dav2")
    save_hugging_face(model, folder / "hf")
    export_onnx(model, folder / "vits.onnx")


def contestant(name: str, folder: Path) -> Contestant:
    """A function of (photograph, batch of ready tensors) → predictions (B, H, W)."""
    if name.startswith("ours"):
        model = load(folder / "dav2", "cpu", torch.float32 if name.endswith("fp32") else None)
        return lambda rgb, batch: np.stack(model.infer_images([rgb] * len(batch)))
    if name == "ONNX Runtime fp32":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "vits.onnx"), providers=["CPUExecutionProvider"])
        return lambda rgb, batch: session.run(None, {"image": batch.numpy()})[0]
    from transformers import DepthAnythingForDepthEstimation

    dtype = torch.bfloat16 if name.endswith("bf16") else torch.float32
    reference: Any = DepthAnythingForDepthEstimation.from_pretrained(folder / "hf", dtype=dtype).eval()
    if dtype == torch.bfloat16:
        reference = reference.to(memory_format=torch.channels_last)

    def run(rgb: NDArray[np.uint8], batch: torch.Tensor) -> NDArray[np.float32]:
        image = batch.to(dtype)
        if dtype == torch.bfloat16:
            image = image.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            return reference(image).predicted_depth.float().numpy()

    return run


CONTESTANTS = ("transformers fp32", "transformers bf16", "ONNX Runtime fp32", "ours fp32", "ours default")


def contestants(console: Console) -> list[str]:
    """Those that make sense on this processor."""
    if machine.precision("auto", "cpu").name == "bf16":
        return list(CONTESTANTS)
    console.print("bfloat16 left out: this processor would emulate it; ours default is float32")
    return [name for name in CONTESTANTS if not name.endswith("bf16")]


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each function, all called once per round in alternating order, after one warm-up round.

    A function that returns a float has timed itself.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name in list(functions) if number % 2 else reversed(functions):
            start = time.perf_counter()
            measured = functions[name]()
            elapsed = time.perf_counter() - start
            if number:
                times[name].append(measured if isinstance(measured, float) else elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


class Turns:
    """A contestant in a process of its own, which works when it is told to."""

    def __init__(self, name: str, folder: Path, shared: bool) -> None:
        self.pipe, other = mp.Pipe()
        self.process = mp.get_context("spawn").Process(target=serve, args=(name, folder, shared, other), daemon=True)
        self.process.start()
        self.memory, self.prediction = self.pipe.recv()
        self.worked: list[float] = []

    def seconds(self, count: int) -> float:
        """Time of one prediction of ``count`` images; what the processor worked for it is added to ``worked``."""
        self.pipe.send(count)
        seconds, worked = self.pipe.recv()
        self.worked.append(worked)
        return float(seconds)

    def close(self) -> None:
        self.pipe.send(0)
        self.process.join()


def serve(name: str, folder: Path, shared: bool, pipe: Connection) -> None:
    """What the process of a contestant does."""
    if shared:
        keep_freed_memory()
    rgb = photograph(SIDE, SIDE, 0)
    one = torch.from_numpy(preprocess(rgb, SIDE))[None]
    run = contestant(name, folder)
    prediction = [run(rgb, one) for _ in range(3)][-1]
    pipe.send((peak_megabytes(), prediction))
    while count := pipe.recv():
        batch = one.repeat(count, 1, 1, 1)
        start, worked = time.perf_counter(), time.process_time()
        run(rgb, batch)
        pipe.send((time.perf_counter() - start, time.process_time() - worked))


def speed(console: Console, rounds: int, shared: bool) -> None:
    """The table of contestants."""
    names = contestants(console)
    with tempfile.TemporaryDirectory() as temporary:
        make_weights(Path(temporary))
        runs = {name: Turns(name, Path(temporary), shared) for name in names}
        latency = interleaved({n: lambda run=run: run.seconds(1) for n, run in runs.items()}, rounds)
        worked = {name: run.worked[1:] for name, run in runs.items()}
        batched = interleaved({n: lambda run=run: run.seconds(BATCH) for n, run in runs.items()}, max(2, rounds // 2))
        for run in runs.values():
            run.close()
    first = names[0]
    precision = machine.precision("auto", "cpu").name
    setting = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; default is {precision}"
    table = Table(title=f"ViT-S, {SIDE} × {SIDE}, {setting}")
    columns = ("latency ms", "× transformers fp32", "× in processor time", "images/s", "peak MB", "max difference")
    for column in ("contestant", *columns):
        table.add_column(column)
    for name, run in runs.items():
        ratio = latency[first] / latency[name]
        work = statistics.median(a / b for a, b in zip(worked[first], worked[name], strict=True))
        error = np.abs(run.prediction - runs[first].prediction).max() / runs[first].prediction.max()
        speeds = (f"{latency[name] * 1e3:.0f}", f"{ratio:.2f}", f"{work:.2f}", f"{BATCH / batched[name]:.2f}")
        table.add_row(name, *speeds, f"{run.memory:.0f}", f"{error:.1e}")
    console.print(table)


def parity(console: Console) -> None:
    """The table of differences from ``transformers``."""
    table = Table(title="largest difference from transformers fp32 / its largest value")
    for column in ("model", "shape", "ours fp32", "ours default", "ours fp32, table not constant"):
        table.add_column(column)
    for size, max_depth in (("vits", None), ("vits", 80.0), ("vitb", None), ("vitb", 20.0)):
        for shape in ((518, 518), (364, 518), (686, 518)):
            same, rounded = difference(size, max_depth, shape, constant=shape != (518, 518))
            free = difference(size, max_depth, shape, constant=False)[0] if shape != (518, 518) else same
            kind = "relative" if max_depth is None else f"metric {max_depth:.0f} m"
            row = (f"{value:.1e}" for value in (same, rounded, free))
            table.add_row(f"{size} {kind}", f"{shape[0]} × {shape[1]}", *row)
    console.print(table)


def difference(size: str, max_depth: float | None, shape: tuple[int, int], constant: bool) -> tuple[float, float]:
    """Differences of our float32 and our default precision from ``transformers`` in float32."""
    from transformers import DepthAnythingForDepthEstimation

    torch.manual_seed(1)
    model = build(size, max_depth).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
        model.decoder.head3.weight.abs_()  # A relative model of random weights may else be 0 everywhere.
        if constant:
            model.encoder.pos_embed[:, 1:] = model.encoder.pos_embed[:, 1:2]
    image = torch.randn(1, 3, *shape)
    with tempfile.TemporaryDirectory() as folder:
        save_hugging_face(model, Path(folder))
        reference = DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    with torch.inference_mode():
        theirs = reference(image).predicted_depth
        ours = [model(image)]
        low = machine.precision("auto", "cpu").dtype
        ours.append(model.to(low)(image.to(low)))
    first, second = (float((x.float() - theirs).abs().max() / theirs.abs().max()) for x in ours)
    return first, second


def photograph(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Something with the statistics of a photograph: noise at all scales."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    for side in (4, 16, 64, 256):
        coarse = Image.fromarray(random.integers(0, 256, (side, side, 3)).astype(np.uint8))
        picture += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64) / 4
    return picture.clip(0, 255).astype(np.uint8)


def folder_run(console: Console, rounds: int) -> None:
    """End to end on files."""
    from transformers import pipeline

    from dav2.predict.options import Options
    from dav2.predict.places import expand
    from dav2.predict.run import predict

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_weights(root)
        (root / "in").mkdir()
        for number in range(PHOTOGRAPHS):
            size = SIZES_OF_PHOTOGRAPHS[number % len(SIZES_OF_PHOTOGRAPHS)]
            Image.fromarray(photograph(*size, number)).save(root / "in" / f"{number:02d}.jpg", quality=92)
        model = load(root / "dav2", "cpu")
        theirs = pipeline("depth-estimation", model=str(root / "hf"), device="cpu")
        files = expand([str(root / "in")]).inputs

        def hugging_face() -> None:
            for file in files:
                theirs(file.path)["depth"].save(root / f"{file.name}.png")

        options = Options(root / "out", ["color"])
        functions = {"pipeline": hugging_face, "ours": lambda: predict(model, files, options, lambda _: None)}
        times = interleaved(functions, max(1, rounds // 4))
    ratio = times["pipeline"] / times["ours"]
    console.print(
        f"{PHOTOGRAPHS} photographs: transformers pipeline {times['pipeline']:.1f} s, dav2 predict "
        f"{times['ours']:.1f} s, {ratio:.2f} times as fast"
    )


def decisions(console: Console, models: Path) -> None:
    """How many DA-2K pairs of the sample bfloat16 decides otherwise than float32."""
    from dav2.data.raw.sources import open_source

    source = open_source("da2k", "data/da2k", "da2k", {})
    frames = [source.read(item) for item in source.index()]
    for directory in sorted(path for path in models.glob("*") if (path / "config.json").exists()):
        exact, fast = load(directory, "cpu", torch.float32), load(directory, "cpu")
        same = [
            agree
            for frame in frames
            for agree in _agreements(exact.infer_image(frame.rgb), fast.infer_image(frame.rgb), frame.extra["pairs"])
        ]
        console.print(f"{directory.name}: {np.mean(same):.2%} of {len(same)} pairs decided alike")


def _agreements(a: NDArray[np.float32], b: NDArray[np.float32], pairs: list[dict[str, Any]]) -> list[bool]:
    return [
        bool((a[tuple(p["point1"])] > a[tuple(p["point2"])]) == (b[tuple(p["point1"])] > b[tuple(p["point2"])]))
        for p in pairs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed"], help="speed, parity, folder, decisions")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", type=Path, default=Path("artifacts/models"))
    parser.add_argument("--shared", action="store_true", help="all processes keep freed memory")
    arguments = parser.parse_args()
    console = Console(width=120)
    parts: dict[str, Callable[[], None]] = {
        "speed": lambda: speed(console, arguments.rounds, arguments.shared),
        "parity": lambda: parity(console),
        "folder": lambda: folder_run(console, arguments.rounds),
        "decisions": lambda: decisions(console, arguments.models),
    }
    unknown = [part for part in arguments.parts if part not in parts]
    if unknown:
        parser.error(f"no part '{unknown[0]}'; there are: {', '.join(parts)}")
    for part in arguments.parts:
        parts[part]()


if __name__ == "__main__":
    main()
