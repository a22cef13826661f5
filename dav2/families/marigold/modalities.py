"""What a model of this family predicts, written as the colour images in [-1, 1] that its codec understands.

Depth of any kind is one grey image. Layers are images of their own, one latent each, in the published order (arXiv
2505.09358, section 4): unit normals as they are; albedo; roughness and metallicity as red and green of one picture
whose blue is 0; shading; residual. Outside of this family all layers are linear. Inside, some are gamma-coded, which
spends the codec's and the network's accuracy where eyes are sensitive: that is a property of the model, and no score
or file shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dav2.families.vectors import unit
from dav2.maps import LAYERS, Maps, Quantity

GAMMA = 2.2
"""Exponent of the curve that the published models call sRGB."""
_MATERIAL = (Quantity.ROUGHNESS, Quantity.METALLICITY)


@dataclass(frozen=True, slots=True)
class Modality:
    """Quantities that are predicted together.

    Attributes:
        layers: in the order of their channels; a single one where it is depth.
        coded: those of them that images hold as ``x^(1/2.2)``.
    """

    layers: tuple[Quantity, ...]
    coded: tuple[Quantity, ...] = ()

    def __post_init__(self) -> None:
        alone = len(self.layers) == 1 and (self.layers[0].relative or self.layers[0] is Quantity.NORMALS)
        apart = Quantity.NORMALS not in self.layers and all(each in LAYERS for each in self.layers)
        if not alone and not (self.layers and apart and len(set(self.layers)) == len(self.layers)):
            raise ValueError(f"no model of this family predicts {', '.join(self.layers) or 'nothing'} together")
        material = [each for each in self.layers if each in _MATERIAL]
        if material and (tuple(material) != _MATERIAL or not _beside(self.layers)):
            raise ValueError("roughness and metallicity share an image: name both, one after the other")
        if wrong := set(self.coded) - set(self.layers):
            raise ValueError(f"gamma-coded layers that are not predicted: {', '.join(sorted(wrong))}")

    @property
    def of_depth(self) -> bool:
        """Whether it says how far things are, up to scale and shift."""
        return self.layers[0].is_depth

    @property
    def images(self) -> tuple[tuple[Quantity, ...], ...]:
        """Layers of each image, and so of each latent."""
        return tuple(_MATERIAL if each is _MATERIAL[0] else (each,) for each in self.layers if each is not _MATERIAL[1])

    @property
    def channels(self) -> int:
        """Values of a pixel."""
        return sum(each.channels for each in self.layers)

    def to_images(self, values: Tensor) -> Tensor:
        """Layers as images.

        Args:
            values: float32 (B, C, H, W), linear: unit normals, all else in [0, 1].

        Returns:
            float32 (B, 3 n, H, W) in [-1, 1] for n images.
        """
        parts = []
        for layer, part in self._split(values).items():
            if layer is Quantity.NORMALS:
                parts.append(part)
                continue
            parts.append((part.clamp(0, 1) ** (1 / GAMMA) if layer in self.coded else part) * 2 - 1)
            if layer is _MATERIAL[1]:
                parts.append(torch.full_like(part, -1))
        return torch.cat(parts, dim=1)

    def from_images(self, images: Tensor) -> Tensor:
        """Images as a codec gives them, (B, 3 n, H, W), as layers: see :meth:`to_images`, whose inverse this is."""
        parts = []
        for layers, image in zip(self.images, images.split(3, dim=1), strict=True):
            for number, layer in enumerate(layers):
                part = image if len(layers) == 1 else image[:, number : number + 1]
                parts.append(unit(part.clamp(-1, 1)) if layer is Quantity.NORMALS else self._linear(layer, part))
        return torch.cat(parts, dim=1)

    def _linear(self, layer: Quantity, part: Tensor) -> Tensor:
        values = (part.clamp(-1, 1) + 1) / 2
        return values**GAMMA if layer in self.coded else values

    def image_masks(self, masks: Tensor) -> Tensor:
        """Where layers are known, bool (B, L, H, W), as where images are: (B, n, H, W), where all their layers are."""
        planes = dict(zip(self.layers, masks.unbind(dim=1), strict=True))
        return torch.stack(
            [torch.stack([planes[layer] for layer in layers]).all(dim=0) for layers in self.images], dim=1
        )

    def resized(self, values: Tensor, shape: tuple[int, int]) -> Tensor:
        """Layers (C, h, w) at another resolution, bilinear; normals are brought back to length 1."""
        placed = F.interpolate(values[None].float(), shape, mode="bilinear")
        return (unit(placed) if self.layers[0] is Quantity.NORMALS else placed)[0]

    def maps(self, values: Tensor, uncertainty: Tensor | None) -> Maps[Tensor]:
        """Layers as what a model gives: the first, with the others beside it.

        Args:
            values: (C, H, W).
            uncertainty: (L, H, W).
        """
        parts = self._split(values[None]).items()
        found = [
            Maps(
                layer,
                part[0] if layer.channels > 1 else part[0, 0],
                None if uncertainty is None else uncertainty[number],
                None if layer is Quantity.NORMALS else "linear",
            )
            for number, (layer, part) in enumerate(parts)
        ]
        first = found[0]
        return Maps(first.quantity, first.values, first.uncertainty, first.colour_space, tuple(found[1:]))

    def _split(self, values: Tensor) -> dict[Quantity, Tensor]:
        return dict(zip(self.layers, values.split([each.channels for each in self.layers], dim=1), strict=True))


def check_reduction(reduction: str, layers: Sequence[Quantity]) -> None:
    """Refuse ways of merging that quantities do not have.

    Raises:
        ValueError: the message says which there are.
    """
    if reduction == "closest" and layers[0] is not Quantity.NORMALS:
        raise ValueError(f"reduction 'closest' is for normals; {', '.join(layers)} takes median or mean")


def merge_layers(layers: Sequence[Quantity], members: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """One prediction of several, which need no alignment.

    Normals: ``closest`` (and ``median``, which vectors do not have) takes at every pixel the member that agrees best
    with the mean direction, ``mean`` that direction itself; the uncertainty is the mean angle of the members to the
    mean direction, in degrees. Other layers: as maps of depth are merged, each channel by itself; the uncertainty of a
    layer is the mean over its channels.

    Args:
        layers: in the order of their channels.
        members: float32 (E, C, H, W), E ≥ 1.
        reduction: ``median``, ``mean`` or ``closest``.

    Returns:
        float32 (C, H, W), and (L, H, W); a single member is returned as it is, with uncertainty 0.

    Raises:
        ValueError: ``closest`` of anything but normals.
    """
    normals = layers[0] is Quantity.NORMALS
    check_reduction(reduction, layers)
    if len(members) == 1:
        return members[0], members.new_zeros(len(layers), *members.shape[-2:])
    if normals:
        mean = unit(members.mean(dim=0, keepdim=True))
        cosine = (members * mean).sum(dim=1).clamp(-1, 1)
        angle = torch.rad2deg(cosine.acos()).mean(dim=0, keepdim=True)
        if reduction == "mean":
            return mean[0], angle
        best = cosine.argmax(dim=0)[None, None].expand(1, 3, -1, -1)
        return members.gather(0, best)[0], angle
    if reduction == "mean":
        merged, spread = members.mean(dim=0), members.std(dim=0)
    else:
        merged = members.median(dim=0).values
        spread = (members - merged).abs().median(dim=0).values
    each = spread.split([layer.channels for layer in layers])
    return merged, torch.stack([part.mean(dim=0) for part in each])


def _beside(layers: Sequence[Quantity]) -> bool:
    first = layers.index(_MATERIAL[0])
    return tuple(layers[first : first + 2]) == _MATERIAL


APPEARANCE = Modality((Quantity.ALBEDO, *_MATERIAL), (Quantity.ALBEDO,))
LIGHTING = Modality((Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL))
_NAMED = {"appearance": APPEARANCE, "lighting": LIGHTING}


def modality(target: str) -> Modality:
    """What ``target`` of ``params.yaml`` means: a quantity, ``appearance`` or ``lighting``."""
    return _NAMED[target] if target in _NAMED else Modality((Quantity(target),))
