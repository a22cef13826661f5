"""What the rest of the house may ask of a family of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dav2.maps import Maps, Quantity

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from dav2.training.recipes import Recipe
    from dav2.training.task import Frames, Task


class Model(Protocol):
    """A model as people use it: photographs in, maps out. It is a ``torch.nn.Module`` besides."""

    family: str
    """Name of its family."""

    @property
    def quantity(self) -> Quantity:
        """What it predicts."""
        ...

    def infer_image(self, rgb: NDArray[np.uint8], input_size: int | None = None) -> NDArray[np.float32]:
        """Values of the map of one uint8 image (H, W, 3), at its resolution."""
        ...

    def infer_images(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[NDArray[np.float32]]:
        """The same for several images."""
        ...

    def infer_maps(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[Maps[NDArray[np.float32]]]:
        """The same with the quantity beside the values."""
        ...

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """Height and width the network sees of an image; images of equal shape can share a batch.

        Raises:
            ValueError: the network cannot take an image of that shape.
        """
        ...


class Predictor(ABC):
    """A model under test, in float32: scores must not depend on which products a machine is fast in.

    Preparing an image is separate from predicting, so that it can happen in reader threads while the network runs.

    Attributes:
        quantity: what it predicts.
        device: where ``predict`` runs.
    """

    quantity: Quantity
    device: torch.device

    @abstractmethod
    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        """uint8 (H, W, 3) → network input (3, h, w) at ``enlarge`` times the native size; called from threads."""

    @abstractmethod
    def predict(self, batch: Tensor) -> Tensor:
        """(B, 3, h, w) on ``device`` → values of the quantity, float32 (B, h, w) or (B, 3, h, w)."""

    @abstractmethod
    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        """One prediction at the resolution (H, W) of its image."""

    @abstractmethod
    def example(self) -> Tensor:
        """A square input (1, 3, h, w) of the native size, for timing."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Size, parameters, input size … for the score file."""


class Family(ABC):
    """One family of models: how to train, keep and use them.

    Attributes:
        name: as ``family`` in ``params.yaml`` and ``config.json`` says it.
        adopts: what :meth:`adopt` takes, in words for people.
        exports: what a model can be written as for other programs: kind → function of model and path, which returns a
            remark for people (empty where there is nothing to say).
    """

    name: str
    adopts: Sequence[str] = ()
    exports: Mapping[str, Callable[[Any, Path], str]] = {}

    @abstractmethod
    def load(self, path: Path) -> Model:
        """Read a model directory into a model on the CPU, in evaluation mode, float32.

        Raises:
            WeightsError: a file is missing or damaged, or weights and configuration do not fit together.
        """

    def adopt(self, source: str, max_depth: float | None) -> Model | None:
        """A model of this family that is no model directory: a size by name, another program's file or folder.

        Args:
            source: what a person named.
            max_depth: range in metres, for a file that holds a metric model and does not say so.

        Returns:
            ``None`` where ``source`` is nothing of this family's.

        Raises:
            WeightsError: it is this family's, and damaged.
        """
        return None

    @abstractmethod
    def predictor(self, model: Model) -> Predictor:
        """The model under test."""

    @abstractmethod
    def task(self, recipe: Recipe) -> Task:
        """The module to train; the same weights at every call."""

    @abstractmethod
    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        """Training batches of one rank, one for each accumulation step."""

    @abstractmethod
    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        """Fixed batches of held-out frames, without augmentation; ``None`` where there are none."""

    def origins(self, recipe: Recipe) -> dict[str, str]:
        """Digests by name of weights, beside data, labels and parents, that decide what a run learns."""
        return {}
