"""What one GPU gives, in one run of at most six minutes: inference, labelling, loader, training, memory.

    python -m benchmarks.gpu                                     # ViT-S and ViT-L, every part
    python -m benchmarks.gpu --sizes vitb vitg --parts training memory
    python -m benchmarks.gpu --device cpu --sizes vitn --side 56 --batch 2 --seconds 0.1 --photographs 4   # a rehearsal

Every figure is printed when it is known and written as a line of JSON, so that a run that is cut off has lost nothing.
Each is compared with plain PyTorch or ``transformers`` in the same run. What does not fit the time any more is left out
and named. Weights are random, photographs those of scikit-image at 1080 × 1440: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.nn.functional as F

from benchmarks.labelling import photographs
from dav2 import chips, limits
from dav2.data.feed.loader import Part, TrainingData
from dav2.data.store.ingest import ingest
from dav2.families.depth_anything.counting import count_gflops, footprint
from dav2.families.depth_anything.foreign import save_hugging_face
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.on_gpu import predict_there
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.families.depth_anything.weights import save_directory
from dav2.families.directory import weights_digest
from dav2.memory import peak_megabytes
from dav2.params import AugmentParams, IngestParams, LossParams, PseudoLabelParams, SourceParams
from dav2.planning import CONTEXT, SPARE, peak_bytes
from dav2.pseudo_label import Labeller, LabelOptions, finish, plan_shards
from dav2.pseudo_label.shares import shares
from dav2.pseudo_label.teacher import Teacher
from dav2.pseudo_label.workers import WorkerSetup, process_workers
from dav2.training.compiling import choose, kept
from dav2.training.feed import feeding

PARTS = ("inference", "labelling", "loader", "training", "memory")
STUDENT = AugmentParams(flip=0.5, jitter=0.8, blur=0.5, cutmix=0.5)
SHARDS = 4


class Bench:
    """Settings of a run, its clock and its report."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.device = torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        self.card = torch.cuda.get_device_name(self.device) if self.cuda else platform.processor() or "cpu"
        self.precision = "bf16" if self.cuda else "fp32"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.began = time.monotonic()

    def late(self, what: str) -> bool:
        """Whether there is no time left for ``what``, which is then said."""
        gone = time.monotonic() - self.began
        if gone > self.options.limit:
            self.say("left out", what, 0.0, f"after {gone:.0f} s")
        return gone > self.options.limit

    def say(self, part: str, what: str, value: float, unit: str, gflops: float = 0.0, **more: Any) -> None:
        """Print a figure and append it to the file; with ``gflops`` of an image, its share of the peak too."""
        line: dict[str, Any] = {"part": part, "what": what, "value": round(value, 4), "unit": unit, **more}
        shown = ""
        if gflops and self.cuda:
            tflops, share = chips.speed(gflops, value, self.card)
            line |= {"tflops": round(tflops, 1), **({} if share is None else {"share": round(share, 4)})}
            shown = f"  {tflops:.0f} TFLOP/s" + (f", {share:.1%} of the peak" if share is not None else "")
        line |= {"card": self.card, "torch": torch.__version__, "at": round(time.monotonic() - self.began, 1)}
        print(f"{line['at']:6.1f} s  {part:<10} {what:<58} {value:10.4g} {unit}{shown}", flush=True)
        with Path(self.options.out).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rate(self, action: Callable[[], object], images: int) -> float:
        """Images per second of ``action``, after three calls to warm up."""
        for _ in range(3):
            action()
        self.wait()
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < self.options.seconds:
            action()
            count += 1
            if self.cuda and count % 8 == 0:
                self.wait()
        self.wait()
        return images * count / (time.perf_counter() - began)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def compiled(self, size: str) -> bool:
        """Whether to compile here: on a GPU, or where it is asked for."""
        return (self.cuda or self.options.compile) and not self.late(f"{size}: what is compiled")


def inference(bench: Bench, size: str) -> None:
    """Batches, one image, and a photograph from bytes to map; beside ``transformers``."""
    side, batch, gflops = (
        bench.options.side,
        bench.options.batch,
        count_gflops(size, bench.options.side, bench.options.side),
    )
    torch.manual_seed(0)
    model = build(size).eval()
    folder = bench.folder / f"{size}-hf"
    save_hugging_face(model, folder)
    model.to(bench.device, bench.dtype)
    images = torch.randn(batch, 3, side, side, device=bench.device, dtype=bench.dtype)
    rgb = cv2.resize(photographs(1)[0], (1440, 1080))
    with torch.inference_mode():
        bench.say(
            "inference", f"{size}, batch {batch}, dav2", bench.rate(lambda: model(images), batch), "images/s", gflops
        )
        one = bench.rate(lambda: model(images[:1]), 1)
        bench.say("inference", f"{size}, batch 1, dav2", 1e3 / one, "ms")
        if bench.cuda:
            replayed = bench.rate(lambda: predict_there(model, images[:1]), 1)
            bench.say("inference", f"{size}, batch 1, dav2 as a graph", 1e3 / replayed, "ms")
        whole = bench.rate(lambda: model.infer_image(rgb, side), 1)
        bench.say("inference", f"{size}, infer_image of 1080 x 1440", 1e3 / whole, "ms")
        reference = _reference(folder, bench)
        theirs = bench.rate(lambda: reference(images), batch)
        bench.say("inference", f"{size}, batch {batch}, transformers", theirs, "images/s", gflops)
        if bench.compiled(size):
            began = time.perf_counter()
            network = torch.compile(model.forward_features, dynamic=False)
            network(images)
            bench.wait()
            bench.say("inference", f"{size}, compiling", time.perf_counter() - began, "s")
            ours = bench.rate(lambda: network(images), batch)
            bench.say("inference", f"{size}, batch {batch}, dav2 compiled", ours, "images/s", gflops)


def _reference(folder: Path, bench: Bench) -> Any:
    from transformers import DepthAnythingForDepthEstimation

    return DepthAnythingForDepthEstimation.from_pretrained(folder, dtype=bench.dtype).eval().to(bench.device)


def labelling(bench: Bench, size: str) -> None:
    """The stage with workers and threads as ``auto`` sets them, beside the bare forward pass."""
    teacher, source = _teacher(bench, size), _photographs(bench)
    options = LabelOptions(bench.options.side, bench.precision, "jpegls12", 10, batch=bench.options.batch)
    opened = Teacher.open(str(teacher), options, str(bench.device))
    shape = opened.teaching.shape(1080, 1440, bench.options.side)
    images = torch.zeros(bench.options.batch, 3, *shape, device=bench.device)
    with torch.inference_mode():
        bare = bench.rate(lambda: opened.teaching.predict(images, []), bench.options.batch)
    gflops = count_gflops(size, *shape)
    bench.say("labelling", f"{size}, bare forward pass", bare, "images/s", gflops)
    settings = PseudoLabelParams(sources=["photos"], runner="process_pool")
    parameters = sum(each.numel() for each in build_on_meta(size).parameters())
    count, threads = shares(settings, limits.cores(), torch.cuda.device_count(), parameters)
    out = bench.folder / f"labels-{size}"
    tasks = plan_shards(str(source), str(out), opened.digest, options)
    Labeller(opened, threads).label(tasks[0])
    setup = WorkerSetup(str(teacher), options, threads, str(bench.device), 300.0)
    with process_workers(setup, count) as workers, ThreadPoolExecutor(count) as pool:
        warm = plan_shards(str(source), str(bench.folder / f"warm-{size}"), tasks[0].teacher, options)
        list(pool.map(workers.label, warm[:count]))
        began = time.perf_counter()
        list(pool.map(workers.label, tasks[1:]))
        seconds = time.perf_counter() - began
    done = sum(task.frames for task in tasks[1:])
    what = f"{size}, stage, {count} process(es) of {threads} threads"
    bench.say("labelling", what, done / seconds, "images/s", gflops, of_forward=round(done / seconds / bare, 3))
    finish(str(out))


def _teacher(bench: Bench, size: str) -> Path:
    folder = bench.folder / f"teacher-{size}"
    if not folder.exists():
        torch.manual_seed(0)
        save_directory(build(size), folder)
    return folder


def _photographs(bench: Bench) -> Path:
    """Shards of JPEG photographs, 1080 × 1440."""
    folder = bench.folder / "photographs"
    if not folder.exists():
        raw = bench.folder / "raw"
        raw.mkdir()
        for number, picture in enumerate(photographs(SHARDS * bench.options.photographs)):
            large = cv2.resize(picture, (1440, 1080))
            cv2.imwrite(str(raw / f"{number:05d}.jpg"), large[..., ::-1])
        source = SourceParams(reader="image_folder", path=str(raw), group="unlabelled")
        ingest("photographs", source, IngestParams(shard_frames=bench.options.photographs), folder)
    return folder


def _labels(bench: Bench) -> Path:
    """Labels of the photographs, by whatever teacher made some already, else by a small one."""
    made = sorted(bench.folder.glob("labels-*/manifest.parquet"))
    if made:
        return made[0].parent
    teacher, source, out = _teacher(bench, "vitn"), _photographs(bench), bench.folder / "labels-small"
    options = LabelOptions(bench.options.side, "fp32", "jpegls12", 10, batch=bench.options.batch)
    labeller = Labeller(Teacher.open(str(teacher), options, str(bench.device)))
    for task in plan_shards(str(source), str(out), weights_digest(teacher), options):
        labeller.label(task)
    finish(str(out))
    return out


def _data(bench: Bench, raw: bool, workers: int) -> TrainingData:
    part = Part(str(_photographs(bench)), str(_labels(bench)))
    return TrainingData(
        [part], crop=bench.options.side, batch=bench.options.batch, seed=0, augment=STUDENT, workers=workers,
        cache_mb=0, raw=raw,
    )  # fmt: skip


def loader(bench: Bench) -> None:
    """Frames per second with a student's augmentations, finished on the host and left to the device."""
    for workers in sorted({1, limits.cores()}):
        for raw in (False, True):
            stream = _data(bench, raw, workers).iterate()
            for _ in range(2):
                next(stream)
            frames, began = 0, time.perf_counter()
            while time.perf_counter() - began < bench.options.seconds:
                frames += len(next(stream)["keys"])
            stream.close()
            how = "left to the device" if raw else "finished on the host"
            bench.say("loader", f"{workers} thread(s), {how}", frames / (time.perf_counter() - began), "frames/s")


def training(bench: Bench, size: str) -> None:
    """A step on a resident batch by plain PyTorch and by dav2, then fed by the loader."""
    batch, side = bench.options.batch, bench.options.side
    gflops = 3 * count_gflops(size, side, side)
    what = f"{size}, batch {batch}"
    plain = bench.rate(_plain_step(bench, size), batch)
    bench.say("training", f"{what}, plain PyTorch, L1", plain, "images/s", gflops)
    if bench.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)
    task = _task(bench, size)
    step = _stepper(task)
    resident = _resident(bench)
    chosen = choose("auto", task.suits, bench.device.type, 0)
    if chosen.how != "none" and bench.compiled(size):
        began = time.perf_counter()
        task.compile_network(chosen.how, dynamic=False)
        step(resident)
        bench.wait()
        bench.say("training", f"{size}, compiling ({chosen.how})", time.perf_counter() - began, "s")
    ours = bench.rate(lambda: step(resident), batch)
    bench.say("training", f"{what}, dav2, resident", ours, "images/s", gflops)
    with feeding(_data(bench, bench.cuda, limits.cores()).iterate(), bench.device) as batches:
        ready = (_tensors(each, bench) for each in batches)
        fed = bench.rate(lambda: step(next(ready)), batch)
    bench.say("training", f"{what}, dav2, fed by the loader", fed, "images/s", gflops)
    if bench.cuda:
        _say_memory(bench, size, torch.cuda.max_memory_allocated(bench.device))


def _say_memory(bench: Bench, size: str, measured: float) -> None:
    side, batch = bench.options.side, bench.options.batch
    modelled = (peak_bytes(*footprint(size, side), batch, stage=0, devices=1) - CONTEXT) / SPARE
    bench.say(
        "memory", f"{size}, batch {batch}, training, measured", measured / 1e9, "GB", modelled=round(modelled / 1e9, 2)
    )


def memory(bench: Bench, size: str) -> None:
    """What the model of memory says of a step, and of this process."""
    side, batch = bench.options.side, bench.options.batch
    for recomputed in (False, True):
        modelled = peak_bytes(*footprint(size, side, recomputed), batch, stage=0, devices=1) / 1e9
        how = "recomputed" if recomputed else "kept"
        bench.say("memory", f"{size}, batch {batch}, training, modelled, activations {how}", modelled, "GB")
    bench.say("memory", "this process on the host", peak_megabytes() / 1024, "GiB")


def build_on_meta(size: str) -> DepthAnything:
    with torch.device("meta"):
        return build(size)


def _task(bench: Bench, size: str) -> RelativeTask:
    torch.manual_seed(0)
    model = build(size).train()
    model.set_activation_checkpointing(size == "vitg")
    return RelativeTask(model, LossParams(trim=0.1), bench.precision).to(bench.device)


def _stepper(task: RelativeTask) -> Callable[[dict[str, torch.Tensor]], None]:
    trained = [each for each in task.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)

    def step(batch: dict[str, torch.Tensor]) -> None:
        task(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _plain_step(bench: Bench, size: str) -> Callable[[], None]:
    """The network as it comes, L1 loss, AdamW: what a loop written by hand does."""
    task, resident = _task(bench, size), _resident(bench)
    optimizer = torch.optim.AdamW([each for each in task.parameters() if each.requires_grad], lr=1e-5, fused=True)

    def step() -> None:
        prediction, _ = task.predict(resident["image"])
        F.l1_loss(prediction, resident["target"]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _resident(bench: Bench) -> dict[str, torch.Tensor]:
    batch, side = bench.options.batch, bench.options.side
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, side, side, generator=generator)
    target = torch.rand(batch, side, side, generator=generator)
    region = torch.zeros(batch, side, side, dtype=torch.uint8)
    found = {"image": image, "target": target, "mask": target > 0.01, "region": region}
    return {name: value.to(bench.device) for name, value in found.items()}


def _tensors(batch: dict[str, Any], bench: Bench) -> dict[str, torch.Tensor]:
    return {name: value.to(bench.device) for name, value in batch.items() if isinstance(value, torch.Tensor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["vits", "vitl"])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--side", type=int, default=518)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--photographs", type=int, default=128, help="in each of four shards")
    parser.add_argument("--limit", type=float, default=330.0, help="seconds after which nothing more is begun")
    parser.add_argument("--compile", action="store_true", help="compile on a processor too")
    parser.add_argument("--out", default="gpu.jsonl", help="lines of JSON are appended to it")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("no GPU here; --device cpu with a small size rehearses every part")
    each_size: dict[str, Callable[[Bench, str], None]] = {
        "inference": inference, "labelling": labelling, "training": training, "memory": memory
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dav2-gpu-") as folder:
        bench = Bench(options, Path(folder))
        for part, size in itertools.product(options.parts, options.sizes):
            if bench.late(f"{part} of {size}"):
                continue
            if part == "loader":
                if size == options.sizes[0]:
                    loader(bench)
                continue
            each_size[part](bench, size)
            if bench.cuda:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    os.environ.update(kept())
    main()
