"""Ranks placed over a Ray cluster by Ray Train.

Ray starts one worker per rank, tells it its rank and where the others are, and starts all of them again when a node
dies; they go on from the newest whole checkpoint. The project's folder must be at the same path on every node.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from dav2 import layout, machine
from dav2.params import Params
from dav2.training.errors import TrainingError
from dav2.training.follow import Events
from dav2.training.journal import Line
from dav2.training.train import RANK

RESTARTS = 3
"""How often Ray starts the ranks again after one of them died."""


def launch_on_ray(params: Params, run: str, root: Path, on_event: Callable[[Line], None] | None = None) -> Path:
    """Train a run on the Ray cluster of ``RAY_ADDRESS``, or on one started here; see ``dav2.training.launch.launch``.

    Raises:
        TrainingError: the ranks failed more than ``RESTARTS`` times, or the cluster cannot hold them.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    root = root.resolve()
    # For a cluster that is started here; one that is up has its own environment.
    machine.share_cores()
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False)
    gpu = ray.cluster_resources().get("GPU", 0) > 0
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"params": params.model_dump(mode="json", by_alias=True), "run": run, "root": str(root)},
        scaling_config=ScalingConfig(
            num_workers=params.compute.world_size,
            use_gpu=gpu,
            resources_per_worker={"CPU": params.compute.threads, **({"GPU": 1} if gpu else {})},
            placement_strategy="PACK" if gpu else "SPREAD",
        ),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=run, storage_path=str(root / ".dav2" / "ray"), failure_config=FailureConfig(max_failures=RESTARTS)
        ),
    )
    with Events(layout.training(root, run), on_event):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise TrainingError(f"training {run} on Ray failed: {error}") from error
    return layout.model(root, run)


class _Config(TypedDict):
    """What a worker is told: the settings as plain values, which run, and the project's folder."""

    params: dict[str, object]
    run: str
    root: str


def _rank(config: _Config) -> None:
    """What each Ray worker runs."""
    # By name: which family is trained is known above this room.
    rank = importlib.import_module(RANK)
    params = Params.model_validate(config["params"])
    os.environ.setdefault("OMP_NUM_THREADS", str(machine.threads(params.compute.threads)))
    rank.train_run(params, config["run"], Path(config["root"]))
