"""The processes that train together, and the few things they have to agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


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
        """Sum over the ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank."""
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every rank, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The first rank's ``value``, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            dist.barrier()


def from_environment() -> Ranks:
    """Rank and world size as torchrun and Ray announce them; a process started by hand is alone."""
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", 0))
    return Ranks(
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        local=local,
        device=torch.device("cuda", local) if cuda else torch.device("cpu"),
    )
