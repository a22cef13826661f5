"""How much time a training step takes beside the bare PyTorch step, and DeepSpeed beside DDP.

    python benchmarks/training.py                      # whole step with data against the bare step, one rank
    python benchmarks/training.py --ranks 2            # DeepSpeed's step against DistributedDataParallel's

The two sides of a comparison take turns in one process on the same batches, a few steps each; the ratio is that of the
medians over all turns. The whole step is one after the first epoch, when the frames that fit the loader's cache are
decoded. Data are those of the run named by --run, so the pipeline must have been run up to it.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dav2 import families
from dav2.families.depth_anything.tasks import DepthTask
from dav2.params import Params, load
from dav2.training.engine import Engine
from dav2.training.optimizers import build_optimizer
from dav2.training.ranks import Ranks, from_environment
from dav2.training.recipes import Recipe, build_recipe
from dav2.training.schedules import learning_rate_factor

TURN = 3
"""Steps of one side before it is the other's turn."""


def bare_step(task: torch.nn.Module, recipe: Recipe, batch: dict[str, Any]) -> Callable[[], None]:
    """Forward, backward, clipping and optimiser on a batch that is already in memory: what cannot be saved."""
    inner: DepthTask = getattr(task, "module", task)
    optimizer = build_optimizer(inner, recipe.settings.optim, zero_stage=0)
    tensors = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}

    def step() -> None:
        task(**tensors)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def take_turns(sides: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    """Median seconds of a step of each side."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        step()
    for _ in range(turns):
        for name, step in sides.items():
            for _ in range(TURN):
                began = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def whole_step(engine: Engine, recipe: Recipe, ranks: Ranks, batches: Any) -> Callable[[], None]:
    """One step as the trainer takes it: next batch, learning rate, update, shared numbers."""
    done = 0

    def step() -> None:
        nonlocal done
        engine.set_learning_rates(learning_rate_factor(done % recipe.settings.steps, recipe.settings.steps,
                                                       recipe.settings.optim))  # fmt: skip
        update = engine.update([next(batches)])
        ranks.sum(torch.tensor([*update.terms.values(), 0.0, 0.0], dtype=torch.float64)).tolist()
        done += 1

    return step


def one_rank(params: Params, run: str, turns: int) -> None:
    """Whole step against bare step at world size 1."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")
    recipe, ranks = build_recipe(params, run, Path(), families.get("depth_anything")), from_environment()
    data = recipe.data(0, 1, params.compute.loader_workers)
    task = recipe.task()
    engine = Engine(copy.deepcopy(task), recipe.settings, Path(params.compute.deepspeed), ranks)
    for index in range(-(-len(data) // recipe.settings.batch)):
        data.batch(index)  # One epoch, so that what the loader keeps is there, as in all epochs but the first.
    with closing(data.iterate(0)) as batches:
        sides = {
            "bare PyTorch step, resident batch": bare_step(task, recipe, data.batch(0)),
            "whole step with data": whole_step(engine, recipe, ranks, batches),
        }
        times = take_turns(sides, turns)
    report(recipe, params, times, turns)


def several_ranks(params: Params, run: str, turns: int) -> None:
    """DeepSpeed's step against DDP's, on resident batches."""
    dist.init_process_group("gloo")
    recipe, ranks = build_recipe(params, run, Path(), families.get("depth_anything")), from_environment()
    data = recipe.data(ranks.rank, ranks.world, 0)
    task, batch = recipe.task(), data.batch(0)
    engine = Engine(copy.deepcopy(task), recipe.settings, Path(params.compute.deepspeed), ranks)
    parallel = torch.nn.parallel.DistributedDataParallel(task)

    def deepspeed_step() -> None:
        engine.update([batch])

    sides = {"DistributedDataParallel": bare_step(parallel, recipe, batch), "DeepSpeed": deepspeed_step}
    times = take_turns(sides, turns)
    if ranks.first:
        report(recipe, params, times, turns)
    dist.destroy_process_group()


def report(recipe: Recipe, params: Params, times: dict[str, float], turns: int) -> None:
    settings = recipe.settings
    print(
        f"{recipe.name}: {settings.size}, batch {settings.batch} at {settings.crop} px, {recipe.precision}, "
        f"{params.compute.threads} threads a rank; {turns} turns of {TURN} steps, median\n"
    )
    (reference, base), *_ = times.items()
    print(f"| {'step':<36} | seconds | images/s | ratio to {reference} |")
    print(f"|{'-' * 38}|---------|----------|---|")
    for name, seconds in times.items():
        print(f"| {name:<36} | {seconds:7.4f} | {settings.batch / seconds:8.1f} | {seconds / base:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--run", default="student-vitt")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--turns", type=int, default=8)
    options = parser.parse_args()
    params = load(options.params)
    torch.set_num_threads(params.compute.threads if options.ranks == 1 else 1)
    if options.ranks == 1:
        one_rank(params, options.run, options.turns)
    elif "RANK" in os.environ:
        several_ranks(params, options.run, options.turns)
    else:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(options.ranks),
        ]
        subprocess.run([*command, *sys.argv], check=True)


if __name__ == "__main__":
    main()
