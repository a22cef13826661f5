"""What a model of this family is beside its parts, and how it infers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dav2.families.marigold.ensemble import Reduction
from dav2.families.marigold.modalities import Modality
from dav2.maps import Quantity

MOST_STEPS = 50
MOST_MEMBERS = 100


@dataclass(frozen=True, slots=True)
class How:
    """How a map is inferred.

    Attributes:
        steps: of the sampler, 1 to 50.
        ensemble: predictions that are merged, 1 to 100; uncertainty needs at least 2.
        seed: of the noise that they begin from.
        reduction: how they are merged.
    """

    steps: int = 1
    ensemble: int = 1
    seed: int = 0
    reduction: Reduction = "median"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"steps must be 1 to {MOST_STEPS}, not {self.steps}")
        if not 1 <= self.ensemble <= MOST_MEMBERS:
            raise ValueError(f"ensemble must be 1 to {MOST_MEMBERS}, not {self.ensemble}")


@dataclass(frozen=True, slots=True)
class MarigoldConfig:
    """What the parts do not say themselves.

    Attributes:
        size: name of the network's shape, or ``own``.
        quantity: what it predicts: depth, its logarithm or disparity, or the first of its layers.
        input_size: longest side of a photograph as the network sees it; 0 is the photograph's own.
        how: how it infers unless told otherwise.
        begins: ``noise``, or ``zeros`` for a network trained to predict at once.
        adapted: whether the network sees photographs; a denoiser of photographs alone does not yet.
        layers: what it predicts where that is not depth, in the order of its channels.
        gamma_coded: layers that its network sees and gives as x^(1/2.2); what it predicts is linear all the same.
    """

    size: str
    quantity: Quantity = Quantity.DEPTH
    input_size: int = 768
    how: How = How()
    begins: Literal["noise", "zeros"] = "noise"
    adapted: bool = True
    layers: tuple[Quantity, ...] = ()
    gamma_coded: tuple[Quantity, ...] = ()

    def __post_init__(self) -> None:
        if self.modality.layers[0] is not self.quantity:
            raise ValueError(f"the first layer is {self.layers[0].value}, the quantity {self.quantity.value}")

    @property
    def modality(self) -> Modality:
        """How it writes what it predicts as images."""
        return Modality(self.layers or (self.quantity,), self.gamma_coded)
