"""The processes that train together, and the few things they have to agree on.

A process group of GPUs has no backend for tensors in main memory, so whatever the ranks exchange goes through the
device they compute on. Nothing else in training calls a collective of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from dav2 import machine
from dav2.training.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
        local: number of this process on its machine.
        device: where it computes.
    """

    rank: int
    world: int
    local: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files that exist once."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks: a tensor like ``values``, which may lie anywhere and stays as it is."""
        if self.world == 1:
            return values
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(values.device)

    def gather(self, value: T) -> list[T]:
        """``value`` of every rank, on every rank; anything that can be pickled."""
        if self.world == 1:
            return [value]
        values = [value] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """The first rank's ``value``, on every rank; anything that can be pickled."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until every rank is here."""
        self.sum(torch.zeros(1))


def from_environment() -> Ranks:
    """Rank and world size as torchrun and Ray announce them; a process started by hand is alone.

    Raises:
        TrainingError: this machine has fewer GPUs than ranks.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    if not torch.cuda.is_available():
        device = torch.device("cpu")
    elif machine.look().gpu is None:
        raise TrainingError(
            f'{machine.look().no_gpu}. Install one that has, or set CUDA_VISIBLE_DEVICES="" to train on the processor'
        )
    elif dist.is_initialized():
        # Ray has brought the ranks together and chosen this one's GPU, whatever its number.
        device = torch.device("cuda", torch.cuda.current_device())
    elif local >= (gpus := torch.cuda.device_count()):
        raise TrainingError(
            f"rank {local} of this machine has no GPU, because there are {gpus}: set compute.world_size to the number "
            'of GPUs, or CUDA_VISIBLE_DEVICES="" to train on the processor'
        )
    else:
        device = torch.device("cuda", local)
    return Ranks(
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        local=local,
        device=device,
    )
