"""What a model predicts: maps of a named quantity, and what every quantity means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Array = TypeVar("Array", bound="NDArray[np.float32] | Tensor")


class Quantity(StrEnum):
    """What the values of a map mean.

    ``disparity``, ``log_depth`` and ``depth`` are affine-invariant: 1/depth, ln depth and planar depth, each up to an
    unknown scale > 0 and shift. ``metres`` is planar depth in metres. ``normals`` are unit vectors in camera axes (x
    right, y up, z to the viewer). The rest are layers of appearance and light with values in [0, 1].
    """

    DISPARITY = "disparity"
    LOG_DEPTH = "log_depth"
    DEPTH = "depth"
    METRES = "metres"
    NORMALS = "normals"
    ALBEDO = "albedo"
    SHADING = "shading"
    RESIDUAL = "residual"
    ROUGHNESS = "roughness"
    METALLICITY = "metallicity"

    @property
    def is_depth(self) -> bool:
        """Whether it says how far things are."""
        return self in _NEARNESS

    @property
    def relative(self) -> bool:
        """Whether it is depth up to an unknown scale and shift."""
        return self.is_depth and self is not Quantity.METRES

    @property
    def channels(self) -> int:
        """Values of each pixel."""
        return 1 if self.is_depth or self in (Quantity.ROUGHNESS, Quantity.METALLICITY) else 3

    @property
    def unit(self) -> str:
        """What a number is a multiple of, as files and pages say it."""
        if self is Quantity.METRES:
            return "metre"
        return f"relative {self.value.replace('_', ' ')}" if self.is_depth else self.value

    @property
    def sign(self) -> int:
        """+1 where larger is nearer, −1 where larger is farther.

        Raises:
            ValueError: the quantity does not say how far things are.
        """
        try:
            return _NEARNESS[self]
        except KeyError:
            raise ValueError(f"{self.value} does not say which of two points is nearer") from None


LAYERS = (
    Quantity.NORMALS, Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL, Quantity.ROUGHNESS, Quantity.METALLICITY,
)  # fmt: skip
"""What a frame may hold beside depth."""
_NEARNESS = {Quantity.DISPARITY: 1, Quantity.LOG_DEPTH: -1, Quantity.DEPTH: -1, Quantity.METRES: -1}
FLOOR = 1e-6
"""Least metres that are inverted."""


@dataclass(frozen=True, slots=True)
class Maps(Generic[Array]):
    """A prediction, or a batch of predictions.

    Attributes:
        quantity: what the values are.
        values: float32 (…, H, W), or (…, 3, H, W) for quantities of three channels.
        uncertainty: float32 (…, H, W), in the values' unit, of normals in degrees, or ``None`` where the model gives
            none.
        colour_space: ``linear`` or ``srgb`` for layers of appearance and light, else ``None``.
        beside: what was predicted together with it.
    """

    quantity: Quantity
    values: Array
    uncertainty: Array | None = None
    colour_space: str | None = None
    beside: tuple[Maps[Array], ...] = ()

    @property
    def every(self) -> tuple[Maps[Array], ...]:
        """It, and what was predicted together with it."""
        return (self, *self.beside)

    def numpy(self: Maps[Tensor]) -> Maps[NDArray[np.float32]]:
        """The same with arrays instead of tensors, which must lie on the CPU."""
        spread = None if self.uncertainty is None else self.uncertainty.numpy()
        beside = tuple(each.numpy() for each in self.beside)
        return Maps(self.quantity, self.values.numpy(), spread, self.colour_space, beside)

    def nearness(self) -> Array:
        """Values in which larger is nearer; metres as 1/depth, so that ties and differences are those of disparity.

        Raises:
            ValueError: the quantity does not say how far things are.
        """
        if self.quantity is Quantity.METRES:
            return 1 / self.values.clip(FLOOR, None)  # type: ignore[return-value]
        return self.values if self.quantity.sign > 0 else -self.values  # type: ignore[return-value]
