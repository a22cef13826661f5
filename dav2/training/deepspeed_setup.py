"""DeepSpeed without what it drags in, and its configuration completed from the recipe.

The files in ``infra/deepspeed`` hold what is the engine's own (ZeRO stage, buckets, overlap, offload). Batch, learning
rate, clipping and accumulation come from ``params.yaml`` and would be said twice there, so they are refused there.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dav2.params import RecipeParams
from dav2.training.errors import TrainingError

OURS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
    "torch_autocast",
)
"""Keys of a DeepSpeed configuration that ``params.yaml`` decides."""


def import_deepspeed() -> ModuleType:
    """DeepSpeed, without what it drags in.

    Its autotuner imports MLflow if it can, which takes longer than the rest of DeepSpeed; a run would pay that at every
    start for nothing. On a processor it would also compile a communication operator that only inference uses.
    """
    if "deepspeed" in sys.modules:
        return sys.modules["deepspeed"]
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    absent = "mlflow" not in sys.modules
    if absent:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        deepspeed = importlib.import_module("deepspeed")
    finally:
        if absent:
            del sys.modules["mlflow"]
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        vars(deepspeed.ops)["__compatible_ops__"] = {}
    return deepspeed


def read_config(path: Path, settings: RecipeParams, world: int) -> dict[str, Any]:
    """A DeepSpeed configuration file, completed from the recipe.

    Raises:
        TrainingError: the file is missing, is not JSON, or sets what ``params.yaml`` decides.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"compute.deepspeed: {path} does not exist; infra/deepspeed/ holds those there are"
        ) from None
    except json.JSONDecodeError as error:
        raise TrainingError(f"{path} is not JSON: {error}") from None
    twice = [key for key in OURS if key in config]
    if twice:
        raise TrainingError(f"{path} sets {', '.join(twice)}, which params.yaml decides; remove it there")
    stage = config.get("zero_optimization", {}).get("stage", 0)
    return {
        **config,
        "train_micro_batch_size_per_gpu": settings.batch // (world * settings.optim.accumulate),
        "gradient_accumulation_steps": settings.optim.accumulate,
        # Without ZeRO the engine has no norm to report and its own clipping is a slow loop, so Engine clips there.
        "gradient_clipping": settings.optim.clip_norm if stage > 0 else 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }


def reshape(source: Path, target: Path) -> None:
    """Convert a partitioned engine state so that any number of ranks can load it (DeepSpeed's universal checkpoint).

    Raises:
        TrainingError: the converter failed; the message ends with what it said.
    """
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(source), "--output_folder", str(target)]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise TrainingError(f"{source} could not be converted for another number of ranks:\n{done.stderr[-2000:]}")
