"""Training batches of this family: photographs and maps in [-1, 1], and the number of every sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dav2.data.feed.loader import Part, TrainingData
from dav2.data.feed.targets import MEAN, STD
from dav2.families.marigold.modalities import modality
from dav2.families.marigold.targets import batch_targets


def to_range(image: Tensor) -> Tensor:
    """Photographs as the loader gives them, ImageNet-normalised (B, 3, H, W), in [-1, 1]."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return ((image * std + mean) * 2 - 1).clamp(-1, 1)


class MapData(TrainingData):
    """As :class:`dav2.data.feed.loader.TrainingData`, with depth between its quantiles, or layers as images.

    A batch holds ``image`` float32 (b, 3, H, W) and ``target`` float32 (b, H, W) in [-1, 1], ``mask`` bool (b, H, W),
    ``position`` int64 (b,): the number of each sample since the run began, over ranks and accumulation steps; ``keys``.
    Where the target is n images of layers, ``target`` is (b, 3 n, H, W) and ``mask`` (b, n, H, W).

    Args:
        target: ``target`` of ``params.MarigoldParams``.
    """

    def __init__(self, parts: Sequence[Part], *, target: str, **settings: Any) -> None:
        self.modality = modality(target)
        if self.modality.of_depth:
            super().__init__(parts, target=target, **settings)
        else:
            super().__init__(parts, layers=self.modality.layers, **settings)

    def batch(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """Batch ``index`` ≥ 0 of this rank."""
        given = super().batch(index)
        if self.modality.of_depth:
            target, mask = batch_targets(given["target"], given["mask"], self.modality.layers[0].sign)
        else:
            target = self.modality.to_images(given["target"])
            mask = self.modality.image_masks(given["mask"])
        share = self.global_batch // self.world
        first = index * self.global_batch + self.rank * share
        return {
            "image": to_range(given["image"]),
            "target": target,
            "mask": mask,
            "position": torch.arange(first, first + share),
            "keys": given["keys"],
        }
