"""How a model labels photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from dav2.families.family import Model, Predictor


class Teaching:
    """A model that labels photographs, through what its predictor does; a family may know a faster way.

    Attributes:
        quantity: what it predicts.
        device: where it predicts.
        features: numbers that say what a photograph shows, or 0 where it has none to give.
        multiple: sides of its input are multiples of this.
        sees: whether it looks at what it is given, so that a mirrored photograph gets a map of its own.
    """

    features: int = 0
    multiple: int = 1
    sees: bool = True

    def __init__(self, model: Model, predictor: Predictor) -> None:
        self.model, self.predictor = model, predictor
        self.quantity, self.device = predictor.quantity, predictor.device
        self._native = predictor.describe()["input_size"]

    def shape(self, height: int, width: int, input_size: int) -> tuple[int, int]:
        """Height and width of its input for a photograph; those of equal shape share a batch."""
        return self.model.network_shape(height, width, input_size)

    def prepare(self, rgb: NDArray[np.uint8], input_size: int) -> NDArray[np.float32]:
        """uint8 (H, W, 3) → network input float32 (3, h, w); called from threads."""
        return self.predictor.prepare(rgb, input_size / self._native).numpy()

    def predict(self, batch: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Photographs named ``keys``, float32 (B, 3, h, w) on ``device``.

        Returns:
            values of the quantity, float32 (B, h, w), and features (B, n) where it has any.
        """
        return self.predictor.predict(batch).float(), None

    def lacking(self, keys: Sequence[str]) -> list[str]:
        """Photographs among ``keys`` that it cannot label, known without looking at them."""
        return []
