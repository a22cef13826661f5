"""What the rest of the house may ask of a family of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dav2.families.directory import WeightsError
from dav2.families.teaching import Teaching
from dav2.maps import Maps, Quantity

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from dav2.params import OutsideParams
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


def described(model: Any, *words: str) -> str:
    """One line about a network, for people: ``<depth_anything vits: relative disparity, 24.8 M parameters, …>``.

    Args:
        words: its size and whatever else tells it from others of its family.
    """
    first = next(model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    kind = str(first.dtype).removeprefix("torch.")
    name = " ".join((model.family, *words))
    return f"<{name}: {model.quantity.unit}, {count / 1e6:.1f} M parameters, {kind} on {first.device}>"


class Predictor(ABC):
    """A model under test, in float32: scores must not depend on which products a machine is fast in.

    Preparing an image is separate from predicting, so that it can happen in reader threads while the network runs.

    Attributes:
        quantity: what it predicts; the first of ``layers``.
        device: where ``predict`` runs.
    """

    quantity: Quantity
    device: torch.device

    @property
    def layers(self) -> tuple[Quantity, ...]:
        """All that it predicts at once, in the order of its channels."""
        return (self.quantity,)

    @abstractmethod
    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        """uint8 (H, W, 3) → network input (3, h, w) at ``enlarge`` times the native size; called from threads."""

    @abstractmethod
    def predict(self, batch: Tensor) -> Tensor:
        """(B, 3, h, w) on ``device`` → values of the quantity, float32 (B, h, w) or (B, 3, h, w).

        Of several layers their channels, one after the other: (B, C, h, w).
        """

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
        calibrated: likewise, where photographs uint8 (H, W, 3) are needed to measure ranges on.
    """

    name: str
    adopts: Sequence[str] = ()
    exports: Mapping[str, Callable[[Any, Path], str]] = {}
    calibrated: Mapping[str, Callable[[Any, Path, Sequence[NDArray[np.uint8]]], str]] = {}

    @abstractmethod
    def load(self, path: Path) -> Model:
        """Read a model directory into a model on the CPU, in evaluation mode, float32.

        Raises:
            WeightsError: a file is missing or damaged, or weights and configuration do not fit together.
        """

    def described(self, model: object) -> dict[str, object]:
        """What it takes to build ``model`` again without its weights, for a model that holds it as a part.

        Raises:
            WeightsError: models of the family are no parts of others.
        """
        raise WeightsError(f"a model of the family {self.name} cannot be part of another")

    def empty(self, document: Mapping[str, object]) -> Model:
        """A model of that description whose weights mean nothing yet, on the meta device.

        Raises:
            WeightsError: the description is damaged, or models of the family are no parts of others.
        """
        raise WeightsError(f"a model of the family {self.name} cannot be part of another")

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

    def adopt_encoder(self, source: str) -> Model | None:
        """A model of this family whose encoder is the one of ``source``, all else drawn from a fixed seed.

        Returns:
            ``None`` where ``source`` holds no encoder of this family's.

        Raises:
            WeightsError: it is this family's, and damaged or of a kind that cannot be used.
        """
        return None

    def asks_for_licence(self, source: str) -> str | None:
        """Name of the licence whose text has to be kept with the weights at ``source`` and all that is made of them.

        Returns:
            ``None`` where the weights are not of this family, or under no such licence that it knows of.
        """
        return None

    def describe_outside(self, file: Path, settings: OutsideParams) -> Model:
        """A model in a file that needs to be described, as section ``outside`` of ``params.yaml`` does.

        Raises:
            WeightsError: it cannot be used, or the family has no such files.
        """
        raise WeightsError(f"{file}: the family {self.name} keeps no models in such files")

    @abstractmethod
    def save(self, model: object, folder: Path, card: str, extra: dict[str, object]) -> None:
        """Write ``model`` as a model directory, with a card in Markdown and further values for its ``config.json``."""

    @abstractmethod
    def predictor(self, model: Model) -> Predictor:
        """The model under test."""

    def teaching(self, model: Any, precision: Literal["fp32", "bf16"], device: torch.device) -> Teaching:
        """The model as one that labels on ``device``, in ``precision`` where it has a choice of both."""
        return Teaching(model, self.predictor(model.to(device)))

    def check_input_size(self, model: object, input_size: int) -> None:
        """Refuse a size at which ``model`` cannot see photographs.

        Raises:
            ValueError: the message says which it takes.
        """
        if input_size < 1:
            raise ValueError(f"input size {input_size} must be at least 1 pixel")

    def set_sampling(
        self, model: object, steps: int | None, ensemble: int | None, seed: int | None, reduction: str | None = None
    ) -> None:
        """Change how a model infers where it draws at random: steps, predictions merged and how, seed.

        Args:
            reduction: ``median``, ``mean`` or ``closest``; as of the others ``None`` keeps what the model says.

        Raises:
            ValueError: the family has nothing to draw, or no model infers like that.
        """
        raise ValueError(
            f"models of the family {self.name} predict at once; --steps, --ensemble, --reduction and --seed mean "
            "nothing"
        )

    def infer_part(
        self,
        model: Model,
        rgb: NDArray[np.uint8],
        place: tuple[int, int],
        whole: tuple[int, int],
        input_size: int | None = None,
    ) -> Maps[NDArray[np.float32]]:
        """Maps of a part of a photograph; what is drawn at random belongs to the photograph, not to the part.

        Args:
            rgb: the part, uint8 (h, w, 3).
            place: its first row and column.
            whole: (H, W) of the photograph.
            input_size: at which the network sees the part.
        """
        return model.infer_maps([rgb], input_size)[0]

    def task(self, recipe: Recipe) -> Task:
        """The module to train; the same weights at every call.

        Raises:
            WeightsError: models of the family are not trained here.
        """
        raise self._untrainable(recipe)

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        """Training batches of one rank, one for each accumulation step."""
        raise self._untrainable(recipe)

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        """Fixed batches of held-out frames, without augmentation; ``None`` where there are none."""
        raise self._untrainable(recipe)

    def _untrainable(self, recipe: Recipe) -> WeightsError:
        return WeightsError(f"{recipe.name}: models of the family {self.name} cannot be trained; choose another family")

    def origins(self, recipe: Recipe) -> dict[str, str]:
        """Digests by name of weights, beside data, labels and parents, that decide what a run learns."""
        return {}
