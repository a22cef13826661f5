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

if TYPE_CHECKING:
    from dav2.training.recipes import Recipe

Output = dict[str, Tensor]
Batch = Mapping[str, Any]
"""Tensors that the task's ``forward`` takes by name, and ``keys``: the names of the frames, for messages."""


class Task(nn.Module, ABC):
    """A model with its loss.

    Attributes:
        model: the network in training; all that a model directory holds of it are its parameters and buffers.
        mixed: whether the network runs under bfloat16 autocast, weights staying float32.
    """

    model: nn.Module
    mixed: bool

    @abstractmethod
    def forward(self, *inputs: Any, **batch: Tensor) -> Output:
        """Loss of one batch.

        Returns:
            ``loss``, a scalar; its terms, scalars without gradient; ``per_image`` (B,), the loss of each frame.
        """

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
    def save(self, model: nn.Module, folder: Path, card: str, extra: dict[str, Any]) -> None:
        """Write ``model`` (this task's, averaged or rebuilt) as a model directory."""

    @abstractmethod
    def compile_network(self, dynamic: bool) -> None:
        """Compile the network; ``dynamic`` where batches differ in shape."""

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

    def origins(self, recipe: Recipe) -> dict[str, str]:
        """Digests by name of weights, beside data, labels and parents, that decide what the run learns."""
        ...
