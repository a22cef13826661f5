"""What the diffusion family costs and reaches, against diffusers' own code where it has any.

* ``ensemble``: ten members of 480 × 640 merged on one thread, ours and diffusers' (BFGS, at its own settings), and the
  mean error of both after least squares to the map that the members are noisy copies of. Members differ in scale,
  shift, fine noise and slow noise.
* ``pipeline``: largest difference of maps from ``MarigoldDepthPipeline`` with the same random weights and latents, at
  1, 4 and 10 steps.
* ``gradient``: largest difference of the gradient of 2 × 16 and 4 × 8 from that of 1 × 32, relative to its largest
  value, for each objective, beside that of the usual mean of means.
* ``sample``: DA-2K and AbsRel of the trained models of this project (``artifacts``), at one step and merged from ten,
  beside the baseline of rows, with 95 % intervals.
* ``edges``: recall of true depth boundaries, their F1, and AbsRel of every trained relative model, refiners beside what
  they refine, on every benchmark whose protocol scores boundaries.
* ``latents``: milliseconds of a training batch that reads latents and of one that encodes, for the codec ``patch`` and
  for an autoencoder of random weights.

    python benchmarks/marigold.py [ensemble pipeline gradient sample edges latents]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, MarigoldDepthPipeline
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from dav2 import layout
from dav2.data.frame import Frame
from dav2.data.store.manifest import read_manifest
from dav2.data.store.shards import read_frame
from dav2.evaluation.passes import Passes
from dav2.evaluation.predictors import Judged, open_predictor
from dav2.families.marigold import codec as codecs
from dav2.families.marigold import ensemble, surgery
from dav2.families.marigold.config import How, MarigoldConfig
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.process import scheduler_config
from dav2.families.marigold.sizes import random_network
from dav2.families.marigold.strategies import OBJECTIVES
from dav2.families.marigold.task import MarigoldTask
from dav2.maps import Maps
from dav2.params import ProcessParams, load
from dav2.runs import all_runs
from dav2.scores.alignment import apply, least_squares
from dav2.scores.boundary import boundary_recall
from dav2.scores.protocols import PROTOCOLS, Protocol
from dav2.scores.scoring import score_frame, valid_mask

MEMBERS, SHAPE, ROUNDS = 10, (480, 640), 5
CONSOLE = Console(width=140)


def members(noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """A map in [0, 1] and noisy copies of it, each with a scale and a shift of its own."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.linspace(0, 1, SHAPE[0])[:, None], torch.linspace(0, 1, SHAPE[1])
    clean = 0.5 * y + 0.3 * torch.sin(7 * x) * y + 0.2 * ((x - 0.5).abs() < 0.2).float()
    clean = (clean - clean.min()) / (clean.max() - clean.min())
    scale = 0.6 + 0.4 * torch.rand(MEMBERS, 1, 1, generator=generator)
    shift = (1 - scale) * torch.rand(MEMBERS, 1, 1, generator=generator)
    slow = F.interpolate(torch.randn(MEMBERS, 1, 8, 8, generator=generator), SHAPE, mode="bilinear")[:, 0]
    fine = torch.randn(MEMBERS, *SHAPE, generator=generator)
    return clean, (clean * scale + shift + noise * (fine + 2 * slow)).clamp(0, 1)


def error(found: Tensor, clean: Tensor) -> float:
    """Mean absolute difference after least squares."""
    mask = torch.ones_like(clean, dtype=torch.bool)
    return float((apply(found, *least_squares(found, clean, mask)) - clean).abs().mean())


def bench_ensemble() -> None:
    """Time and error of merging."""
    torch.set_num_threads(1)
    table = Table("noise", "ours s", "diffusers s", "ours error", "diffusers error", "one member")
    for noise in (0.01, 0.02, 0.05):
        clean, noisy = members(noise, 0)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            ours, _ = ensemble.merge(noisy)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        theirs, _ = MarigoldDepthPipeline.ensemble_depth(noisy[:, None], True, True, False)
        spent = time.perf_counter() - began
        alone = float(np.mean([error(each, clean) for each in noisy]))
        figures = (error(ours, clean), error(theirs[0, 0], clean), alone)
        table.add_row(f"{noise}", f"{np.median(times):.3f}", f"{spent:.2f}", *(f"{each:.5f}" for each in figures))
    CONSOLE.print(table)


def random_model(process: ProcessParams) -> Marigold:
    """The smallest network on a patch codec fitted to noise."""
    torch.manual_seed(0)
    codec = codecs.fit_patches([F.interpolate(torch.rand(8, 3, 16, 16) * 2 - 1, (96, 96), mode="bilinear")], 8, 4)
    unet = random_network("tiny", 4)
    surgery.fit(unet, 4, 1)
    config = MarigoldConfig("tiny", input_size=96)
    return Marigold(unet, codec, scheduler_config(process), torch.randn(1, 2, 32), config).eval()


def bench_pipeline() -> None:
    """Difference from diffusers' pipeline."""
    model = random_model(ProcessParams())
    pipe = MarigoldDepthPipeline(
        model.unet, model.codec, DDIMScheduler.from_config(model.scheduler), None, None, prediction_type="depth"
    )
    pipe.empty_text_embedding = model.prompt
    pipe.set_progress_bar_config(disable=True)
    rgb = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    latents = model.starts(model.network_shape(90, 120), How())
    table = Table("steps", "largest difference", "range of the map")
    for steps in (1, 4, 10):
        theirs = pipe(Image.fromarray(rgb), steps, 1, 96, latents=latents).prediction[0, ..., 0]
        ours = model.infer_image(rgb, steps=steps)
        table.add_row(f"{steps}", f"{np.abs(ours - theirs).max():.1e}", f"{np.ptp(ours):.3f}")
    CONSOLE.print(table)


def _batch(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 48, 48, generator=generator) * 2 - 1
    mask = torch.ones(count, 48, 48, dtype=torch.bool)
    for row in range(count):
        mask[row, : int(torch.randint(0, 49, (), generator=generator))] = False
    return {"image": images, "target": images.mean(dim=1), "mask": mask, "position": torch.arange(count)}


def _gradient(task: MarigoldTask, parts: int, usual: bool = False) -> Tensor:
    whole = _batch(32)
    elements = task.objective.elements(task.model, whole["mask"]).sum() / parts
    task.zero_grad()
    for first in range(0, 32, 32 // parts):
        part = {name: value[first : first + 32 // parts] for name, value in whole.items()}
        (task(**part, total=None if usual else elements)["loss"] / parts).backward()
    return torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])


def bench_gradient() -> None:
    """Equality of gradients, however the batch is shared out."""
    table = Table("objective", "2 × 16", "4 × 8", "4 × 8, mean of means")
    for name in ("diffusion", "one_step_x0", "one_step_decoded"):
        kind = OBJECTIVES[name]
        process = ProcessParams()
        task = MarigoldTask(random_model(process).train(), kind(process, 0), "fp32")
        whole = _gradient(task, 1)
        largest = float(whole.abs().max())
        others = (_gradient(task, 2), _gradient(task, 4), _gradient(task, 4, usual=True))
        table.add_row(name, *(f"{float((each - whole).abs().max()) / largest:.1e}" for each in others))
    CONSOLE.print(table)


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    return "void" if mean is None or low is None or high is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _row(name: str, judged: Judged, params: Any) -> list[str]:
    chosen = [each for each, spec in params.evaluate.benchmarks.items() if spec.models == "relative"]
    passes = Passes(params, Path(), judged, 8, None, ["da2k", *chosen])
    da2k = passes.da2k()
    cells = [name, _interval(da2k.accuracy, da2k.low, da2k.high)]
    for each in chosen:
        result = passes.benchmark(each)
        cells.append(_interval(result.metrics.get("abs_rel"), *result.intervals.get("abs_rel", (None, None))))
    return [*cells, "–" if judged.is_baseline else f"{judged.latency_ms():.0f}"]


def bench_sample() -> None:
    """The models of this project beside one another."""
    params = load()
    runs = [name for name, run in all_runs(params).items() if run.quantity.relative]
    table = Table(
        "model",
        "DA-2K",
        *(each for each, spec in params.evaluate.benchmarks.items() if spec.models == "relative"),
        "ms",
    )
    table.add_row(*_row("baseline-row", open_predictor("baseline-row", Path()), params))
    for name in runs:
        if not layout.weights(Path(), name).is_file():
            continue
        judged = open_predictor(name, Path())
        table.add_row(*_row(name, judged, params))
        model = getattr(judged.predictor, "model", None)
        if isinstance(model, Marigold) and model.config.begins == "noise":
            model.config = replace(model.config, how=How(ensemble=MEMBERS))
            table.add_row(*_row(f"{name}, 1 × {MEMBERS}", judged, params))
    CONSOLE.print(table)


def bench_edges() -> None:
    """Boundaries of the models of this project."""
    params = load()
    table = Table("benchmark", "model", "boundary recall", "boundary F1", "AbsRel")
    for key, spec in params.evaluate.benchmarks.items():
        protocol = PROTOCOLS[spec.protocol]
        if "f1" not in protocol.boundary or spec.models != "relative":
            continue
        shards = Path(params.shards(spec.source))
        frames = [read_frame(shards, row) for row in read_manifest(shards).to_dict("records")]
        for name, run in all_runs(params).items():
            if run.quantity.relative and layout.weights(Path(), name).is_file():
                figures = _edges(open_predictor(name, Path()), frames, protocol)
                table.add_row(key, name, *(f"{each:.3f}" for each in figures))
    CONSOLE.print(table)


def _edges(judged: Judged, frames: list[Frame], protocol: Protocol) -> list[float]:
    """Means over frames of boundary recall, boundary F1 and AbsRel."""
    found = []
    predictor = judged.predictor
    for frame in frames:
        assert frame.depth is not None
        truth = torch.from_numpy(frame.depth)
        with torch.inference_mode():
            values = predictor.predict(predictor.prepare(frame.rgb)[None])[0]
            scored = score_frame(
                Maps(predictor.quantity, predictor.resized(values, frame.depth.shape)), truth, protocol
            )
        if scored.depth is not None:
            recall = boundary_recall(scored.depth, truth, valid_mask(truth, protocol))
            found.append([recall, scored.metrics["boundary_f1"], scored.metrics["abs_rel"]])
    return [float(each) for each in np.nanmean(found, axis=0)]


def bench_latents() -> None:
    """What encoding costs of a training step of the smallest network, 16 crops of 96 pixels on one thread."""
    torch.set_num_threads(1)
    table = Table("codec", "encode ms", "step that encodes ms", "step that reads ms")
    for name, codec in (("patch", random_model(ProcessParams()).codec), ("autoencoder", _autoencoder())):
        table.add_row(name, *(f"{each:.0f}" for each in _with_and_without(codec)))
    CONSOLE.print(table)


def _with_and_without(codec: Any) -> tuple[float, float, float]:
    """Milliseconds of encoding photographs and maps, of a step that does, and of one that is given latents."""
    model = random_model(ProcessParams())
    model = Marigold(model.unet, codec, model.scheduler, model.prompt, model.config)
    task = MarigoldTask(model.train(), OBJECTIVES["diffusion"](ProcessParams(), 0), "fp32")
    image = torch.rand(16, 3, 96, 96) * 2 - 1
    mask = torch.ones(16, 96, 96, dtype=torch.bool)
    batch = {"image": image, "target": image.mean(dim=1), "mask": mask, "position": torch.arange(16)}
    with torch.no_grad():
        kept = {"seen": codecs.encode(codec, image), "latent": codecs.encode_map(codec, batch["target"])}
        encoding = 2 * _median_ms(lambda: codecs.encode(codec, image))
    encodes = _median_ms(lambda: task(**batch)["loss"].backward())
    return encoding, encodes, _median_ms(lambda: task(**batch, **kept)["loss"].backward())


def _autoencoder() -> AutoencoderKL:
    """A quarter of the width of Stable Diffusion's, with random weights."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2, norm_num_groups=32,
    ).eval()  # fmt: skip


def _median_ms(act: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times[1:]))


PARTS = {
    "ensemble": bench_ensemble, "pipeline": bench_pipeline, "gradient": bench_gradient, "sample": bench_sample,
    "edges": bench_edges, "latents": bench_latents,
}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    for part in parser.parse_args().parts or PARTS:
        CONSOLE.rule(part)
        PARTS[part]()
