"""The DeepSpeed engine: one update, saving and restoring, and what of these differs between ZeRO stages."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dav2.params import RecipeParams
from dav2.training.checkpoints import TEMPORARY
from dav2.training.deepspeed_setup import import_deepspeed, read_config, reshape
from dav2.training.errors import TrainingError
from dav2.training.optimizers import build_optimizer
from dav2.training.ranks import Ranks
from dav2.training.task import Batch, Task

UNIVERSAL = {"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}}
"""What DeepSpeed's converter for other world sizes looks for in a checkpoint."""


@dataclass(frozen=True)
class Update:
    """What one update did.

    Attributes:
        terms: this rank's mean over the accumulation steps of ``loss`` and its terms, scalars on its device.
        gradient_norm: over all parameters and ranks, before clipping; not finite when the update was skipped.
        applied: whether the weights changed.
        suspects: this rank's keys of images without a finite loss, or all its keys if every loss was finite.
    """

    terms: dict[str, Tensor]
    gradient_norm: float
    applied: bool
    suspects: list[str]


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
        stage = int(self.config.get("zero_optimization", {}).get("stage", 0))
        optimizer = build_optimizer(task.to(ranks.device), settings.optim, stage)
        self.deep, self.optimizer, _, _ = deepspeed.initialize(model=task, optimizer=optimizer, config=self.config)
        self.stage = int(self.deep.zero_optimization_stage())
        self._settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        if self.stage == 0 and ranks.world == 1:
            # Alone there is nothing to add up, but DeepSpeed would copy all gradients to a buffer and back.
            self.deep.enable_backward_allreduce = False

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

    def update(self, batches: Sequence[Batch]) -> Update:
        """One optimiser update from this rank's share of the global batch.

        Args:
            batches: one for each accumulation step, as the loader gives them.

        A gradient that is not finite on any rank leaves weights and optimiser as they were, on all of them.
        """
        batches = self.task.shared(batches, self.ranks)
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
        applied = math.isfinite(norm)
        suspects = [] if applied else _suspects(batches, per_image)
        return Update(totals, norm, applied, suspects)

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

    def whole_model(self) -> nn.Module | None:
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
        return self.task.rebuilt(state)

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
        # DeepSpeed gives every group the settings of the first one when it reads ZeRO-3's weights for another number of
        # ranks: the decoder would go on at the encoder's rate.
        for group, settings in zip(self.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)

    def on_device(self, batch: Batch) -> dict[str, Tensor]:
        """The tensors of a batch where the task computes."""
        return {
            name: value.to(self.ranks.device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
        }


def _suspects(batches: Sequence[Batch], per_image: Sequence[Tensor]) -> list[str]:
    keys = [key for batch in batches for key in batch["keys"]]
    finite = torch.cat(list(per_image)).isfinite().tolist()
    bad = [key for key, good in zip(keys, finite, strict=True) if not good]
    return bad or keys
