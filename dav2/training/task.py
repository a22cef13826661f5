"""What the loop asks of whatever it trains.

A task is the module that DeepSpeed trains: a batch goes in, ``{"loss": …}`` and its terms come out. The loop knows
nothing of networks, losses or what a batch holds; a family of models (``dav2/families``) brings all of that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2.maps import Maps
from dav2.training.compiling import How

if TYPE_CHECKING:
    from dav2.training.ema import Ema
    from dav2.training.ranks import Ranks
    from dav2.training.recipes import Recipe

Output = dict[str, Tensor]
Batch = Mapping[str, Any]
"""Tensors that the task's ``forward`` takes by name, and ``keys``: the names of the frames, for messages."""


class Task(nn.Module, ABC):
    """A model with its loss.

    Attributes:
        model: the network in training; all that a model directory holds of it are its parameters and buffers.
        mixed: whether the network runs under bfloat16 autocast, weights staying float32.
        began: what was taken of the start, in a sentence; empty where the weights are random.
        predicts: whether ``infer`` can be asked; a task that only prepares another predicts nothing.
        suits: what of the network is worth compiling on a GPU.
    """

    model: nn.Module
    mixed: bool
    began: str = ""
    predicts: bool = True
    suits: How = "none"

    @abstractmethod
    def forward(self, *inputs: object, **batch: Tensor) -> Output:
        """Loss of one batch.

        Returns:
            ``loss``, a scalar; its terms, scalars without gradient; ``per_image`` (B,), the loss of each frame.
        """

    def shared(self, batches: Sequence[Batch], ranks: Ranks) -> Sequence[Batch]:
        """One rank's micro-batches of an update, with what each has to know of the whole global batch; every rank calls
        it before the first of them."""
        return batches

    def averages(self) -> Mapping[str, Ema]:
        """Moving averages by name that the loss needs; the loop asks once, before the first update.

        It takes every update into them, and keeps and restores them with each checkpoint.
        """
        return {}

    @abstractmethod
    def part_of(self, name: str, parameter: nn.Parameter) -> str:
        """Part of the model that a parameter belongs to: ``encoder``, ``decoder``, or ``matrices`` for Muon's share."""

    @abstractmethod
    def infer(self, images: Sequence[NDArray[np.uint8]], input_size: int) -> list[Maps[NDArray[np.float32]]]:
        """Predictions for uint8 images (H, W, 3) at their own resolution, while training, in its precision."""

    @abstractmethod
    def preview(self, batch: Mapping[str, Tensor], rows: int) -> list[list[NDArray[np.uint8]]]:
        """Pictures of the first ``rows`` frames of a batch: photograph, prediction, target; uint8 (H, W, 3) each."""

    @abstractmethod
    def rebuilt(self, state: dict[str, Tensor]) -> nn.Module:
        """A model of the same configuration that holds ``state``, on the CPU."""

    @abstractmethod
    def compile_network(self, how: How, dynamic: bool) -> None:
        """Compile the network, or its blocks, for training; ``dynamic`` where batches differ in shape."""

    def gflops(self, height: int, width: int) -> float:
        """10⁹ operations of a forward pass of one image of that size; 0 where nobody has counted them."""
        return 0.0

    @abstractmethod
    def save_memory(self) -> None:
        """Recompute activations in the backward pass."""


class Frames(Protocol):
    """What a run learns from, in batches."""

    @property
    def repeated(self) -> int:
        """Frames left out because another source of the run holds the same picture."""
        ...

    def __len__(self) -> int:
        """Frames of this rank's epoch."""
        ...

    def iterate(self, start: int = 0) -> Generator[Batch]:
        """Batches from number ``start`` on, without end; a function of seed, rank and number alone."""
        ...

    def batch(self, index: int) -> Batch:
        """Batch number ``index``."""
        ...


class Trains(Protocol):
    """The part of a family of models that training needs."""

    name: str

    def task(self, recipe: Recipe) -> Task:
        """The module to train; the same weights at every call."""
        ...

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        """Training batches of one rank, one for each accumulation step."""
        ...

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        """Fixed batches of held-out frames, without augmentation; ``None`` where there are none."""
        ...

    def save(self, model: object, folder: Path, card: str, extra: dict[str, object]) -> None:
        """Write a task's model (in training, averaged or rebuilt) as a model directory."""
        ...

    def origins(self, recipe: Recipe) -> dict[str, str]:
        """Digests by name of weights, beside data, labels and parents, that decide what the run learns."""
        ...
