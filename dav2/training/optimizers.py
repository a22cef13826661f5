"""Parameter groups and optimisers.

Adam and AdamW are what the paper and its authors' code use, with encoders that DINOv2 has trained. An encoder that
starts from nothing leaves the plateau of "lower in the image is nearer" several times sooner under Muon (K. Jordan
et al. 2024: momentum, then the nearest orthogonal matrix as the update), so the sample's models are trained with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import nn

from dav2.params import OptimParams
from dav2.training.errors import TrainingError
from dav2.training.muon import Muon
from dav2.training.task import Task


def parameter_groups(task: Task, optim: OptimParams) -> list[dict[str, object]]:
    """Encoder and decoder at their own learning rates, each split into weights that decay and those that do not.

    Biases, norms, scales of residual branches and embeddings do not decay: pulling them to 0 regularises nothing. With
    ``muon`` the matrices of the encoder's blocks are a part of their own, ``matrices``, at ``matrix_lr``.
    """
    rates = {"encoder": optim.encoder_lr, "decoder": optim.decoder_lr, "matrices": optim.matrix_lr}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(("pos_embed", "cls_token"))
            part = task.part_of(name, parameter)
            if part == "matrices" and optim.optimizer != "muon":
                part = "encoder"
            groups.setdefault((part, decays), []).append(parameter)
    return [
        {
            "params": members,
            "lr": rates[part],
            "base_lr": rates[part],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "part": part,
        }
        for (part, decays), members in sorted(groups.items(), reverse=True)
    ]


def build_optimizer(task: Task, optim: OptimParams, zero_stage: int) -> torch.optim.Optimizer:
    """The optimiser that ``optim`` names over the groups of :func:`parameter_groups`.

    Raises:
        TrainingError: ``muon`` at a ZeRO stage that cuts matrices into pieces, which it needs whole.
    """
    groups = parameter_groups(task, optim)
    if optim.optimizer == "adam":
        return torch.optim.Adam(groups, betas=optim.betas, fused=True)
    if optim.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=optim.betas, fused=True)
    if zero_stage > 0:
        raise TrainingError(
            f"optim.optimizer: muon needs whole matrices on every rank, and ZeRO stage {zero_stage} partitions them; "
            "take a DeepSpeed configuration with stage 0, or adamw"
        )
    matrices = [group for group in groups if group["part"] == "matrices"]
    rest = [group for group in groups if group["part"] != "matrices"]
    # In the precision the run computes in: that is the one in which products are fast where it runs.
    muon = Muon(matrices, dtype=torch.bfloat16 if task.mixed else torch.float32)
    return Joined(muon, torch.optim.AdamW(rest, betas=optim.betas, fused=True))


class Joined(torch.optim.Optimizer):
    """Several optimisers over different parameters, seen as one: their groups in a row, their state in one table."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self._parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and the state held here."""
        groups: Iterator[dict[str, object]] = iter(self.param_groups)
        for part in self._parts:
            part.param_groups = list(itertools.islice(groups, len(part.param_groups)))
            part.state = self.state

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """One update of every part."""
        if closure is not None:
            raise ValueError("joined optimisers take no closure: each would evaluate the loss again")
        for part in self._parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._share()
