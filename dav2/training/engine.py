"""The DeepSpeed engine: start-up, one update, and what of it differs between ZeRO stages.

The files in ``infra/deepspeed`` hold what is the engine's own (ZeRO stage, buckets, overlap, offload). Batch, learning
rate, clipping and accumulation come from ``params.yaml`` and would be said twice there, so they are refused there.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dav2.models.depth_anything import DepthAnything
from dav2.models.weights import assign, empty_model
from dav2.params import OptimParams, RecipeParams
from dav2.training.checkpoints import TEMPORARY
from dav2.training.errors import TrainingError
from dav2.training.ranks import Ranks
from dav2.training.tasks import Task

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


UNIVERSAL = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}
"""What DeepSpeed's converter for other world sizes looks for in a checkpoint."""


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        terms: this rank's mean over the accumulation steps of ``loss`` and its terms.
        gradient_norm: over all parameters and ranks, before clipping; not finite when the update was skipped.
        applied: whether the weights changed.
        suspects: this rank's keys of images without a finite loss, or all its keys if every loss was finite.
    """

    terms: dict[str, float]
    gradient_norm: float
    applied: bool
    suspects: list[str]


def import_deepspeed() -> Any:
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


def parameter_groups(task: Task, optim: OptimParams) -> list[dict[str, Any]]:
    """Encoder and decoder at their own learning rates, each split into weights that decay and those that do not.

    Biases, norms, scales of residual branches and embeddings do not decay: pulling them to 0 regularises nothing.
    """
    encoder = {id(p) for p in task.model.encoder_parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token"))
            groups.setdefault((id(parameter) in encoder, decays), []).append(parameter)
    return [
        {
            "params": members,
            "lr": optim.encoder_lr if in_encoder else optim.decoder_lr,
            "base_lr": optim.encoder_lr if in_encoder else optim.decoder_lr,
            "weight_decay": optim.weight_decay if decays else 0.0,
            "part": "encoder" if in_encoder else "decoder",
        }
        for (in_encoder, decays), members in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


class Engine:
    """A task under DeepSpeed.

    Args:
        task: moved to the device of ``ranks``.
        settings: batch, optimiser, clipping.
        config_path: the DeepSpeed configuration file.
        ranks: the processes that train together; torch.distributed must be up.
    """

    def __init__(self, task: Task, settings: RecipeParams, config_path: Path, ranks: Ranks) -> None:
        deepspeed = import_deepspeed()
        self.config = read_config(config_path, settings, ranks.world)
        self.clip_norm = settings.optim.clip_norm
        self.ranks = ranks
        groups = parameter_groups(task.to(ranks.device), settings.optim)
        kind = torch.optim.AdamW if settings.optim.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(groups, betas=settings.optim.betas, fused=True)
        self.deep, self.optimizer, _, _ = deepspeed.initialize(model=task, optimizer=optimizer, config=self.config)
        self.stage = int(self.deep.zero_optimization_stage())

    @property
    def task(self) -> Task:
        """The module in training."""
        task: Task = self.deep.module
        return task

    def set_learning_rates(self, factor: float) -> dict[str, float]:
        """Set every group to ``factor`` × its base; returns the rates by part, ``lr_encoder`` and ``lr_decoder``."""
        rates = {}
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
            rates[f"lr_{group['part']}"] = group["lr"]
        return rates

    def update(self, batches: Sequence[dict[str, Any]]) -> Update:
        """One optimiser update from this rank's share of the global batch.

        Args:
            batches: one for each accumulation step, as the loader gives them.

        A gradient that is not finite on any rank leaves weights and optimiser as they were, on all of them.
        """
        totals: dict[str, Tensor] = {}
        per_image: list[Tensor] = []
        for number, batch in enumerate(batches, start=1):
            output = self.deep(**self.on_device(batch))
            self.deep.backward(output["loss"])
            per_image.append(output.pop("per_image"))
            for name, value in output.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / len(batches)
            if number < len(batches):
                self.deep.step()
        norm = self._step_without_zero() if self.stage == 0 else self._step_with_zero()
        values = torch.stack(list(totals.values())).tolist()
        applied = math.isfinite(norm)
        suspects = [] if applied else _suspects(batches, per_image)
        return Update(dict(zip(totals, values, strict=True)), norm, applied, suspects)

    def _step_without_zero(self) -> float:
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        total = torch.nn.utils.get_total_norm(gradients, foreach=True)
        norm = float(total)
        if not math.isfinite(norm):
            # Without gradients the optimiser passes over every parameter; the engine still counts the step.
            for parameter in self.task.parameters():
                parameter.grad = None
        elif 0 < self.clip_norm < norm:
            torch._foreach_mul_(gradients, self.clip_norm / norm)
        self.deep.step()
        return norm

    def _step_with_zero(self) -> float:
        self.deep.step()
        if getattr(self.optimizer, "overflow", False):
            return math.inf
        return float(self.deep.get_global_grad_norm())

    @property
    def parameter_count(self) -> int:
        """Parameters of the task, partitioned ones counted whole."""
        return sum(getattr(p, "ds_numel", p.numel()) for p in self.task.parameters())

    def whole_model(self) -> DepthAnything | None:
        """The model with all its weights, for the first rank to write; ``None`` on the others.

        All ranks must call it: with ZeRO-3 each holds a part of every weight.
        """
        if self.stage < 3:
            return self.task.model if self.ranks.first else None
        deepspeed = import_deepspeed()
        state = {}
        for name, parameter in self.task.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter]):
                if self.ranks.first:
                    state[name] = parameter.detach().float().cpu().clone()
        if not self.ranks.first:
            return None
        model = empty_model(self.task.model.config)
        assign(model, state, "ZeRO-3 weights")
        return model

    def save(self, folder: Path, tag: str) -> None:
        """Write weights and optimiser below ``folder/tag``; every rank takes part."""
        self.deep.save_checkpoint(str(folder), tag=tag, client_state=dict(UNIVERSAL), save_latest=False)

    def load(self, folder: Path, tag: str, world: int, stage: int) -> None:
        """Restore what :meth:`save` wrote with ``world`` ranks at ZeRO stage ``stage``; every rank takes part.

        Raises:
            TrainingError: the state does not fit this engine.
        """
        if stage != self.stage:
            raise TrainingError(
                f"{folder} was written at ZeRO stage {stage}, this configuration has stage {self.stage}; resume with "
                "the former one, or start a new run"
            )
        if self.stage == 0 or world == self.ranks.world:
            self._restore(folder, tag, universal=False)
            return
        reshaped = folder.with_name(f"reshaped{TEMPORARY}")
        if self.ranks.first:
            reshape(folder / tag, reshaped / tag)
        self.ranks.wait()
        self._restore(reshaped, tag, universal=True)
        self.ranks.wait()
        if self.ranks.first:
            shutil.rmtree(reshaped)

    def _restore(self, folder: Path, tag: str, universal: bool) -> None:
        self.deep._config.load_universal_checkpoint = universal
        path, _ = self.deep.load_checkpoint(str(folder), tag=tag)
        if path is None:
            raise TrainingError(f"{folder / tag} holds no state for ZeRO stage {self.stage}")

    def on_device(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch where the task computes."""
        return {
            name: value.to(self.ranks.device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
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


def _suspects(batches: Sequence[dict[str, Any]], per_image: Sequence[Tensor]) -> list[str]:
    keys = [key for batch in batches for key in batch["keys"]]
    finite = torch.cat(list(per_image)).isfinite().tolist()
    bad = [key for key, good in zip(keys, finite, strict=True) if not good]
    return bad or keys
