"""The task of this family: a model with an objective, and a loss that no sharing-out of the batch changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2.families.marigold import codec as codecs
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Objective, Sample
from dav2.families.marigold.weights import assign, config_json, empty_model
from dav2.maps import Maps
from dav2.pictures import coloured
from dav2.training.compiling import How
from dav2.training.task import Batch, Output, Task

if TYPE_CHECKING:
    from dav2.training.ema import Ema
    from dav2.training.ranks import Ranks


GIVEN = ("image", "target", "mask", "position")
"""What a batch brings of a sample."""


class MarigoldTask(Task):
    """A model with its objective.

    Args:
        model: the network in training; its codec stays as it is.
        objective: see :mod:`dav2.families.marigold.objectives`.
        precision: ``bf16`` runs the network under autocast, weights and codec stay float32.
    """

    model: Marigold

    def __init__(self, model: Marigold, objective: Objective, precision: str) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.mixed = precision == "bf16"
        self.predicts = model.config.adapted
        model.codec.requires_grad_(False)
        objective.begins(model)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What the objective needs beside the model is no submodule, but has to follow the task to its device.
        for network in self.objective.beside:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def averages(self) -> Mapping[str, Ema]:
        return self.objective.averages(self.model)

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        target: Tensor,
        mask: Tensor,
        position: Tensor,
        total: Tensor | None = None,
        guide: Tensor | None = None,
        slope: Tensor | None = None,
        seen: Tensor | None = None,
        latent: Tensor | None = None,
    ) -> Output:
        """Loss of one micro-batch.

        Args:
            image: float32 (B, 3, H, W) in [-1, 1].
            target: float32 (B, H, W) in [-1, 1], or (B, 3 n, H, W).
            mask: bool (B, H, W), or (B, n, H, W).
            position: int64 (B,), numbers of the samples.
            total: elements of the global batch per micro-batch (:meth:`shared`); ``None`` counts those given here.
            guide, slope, seen, latent: see :class:`dav2.families.marigold.objectives.Sample`.
        """
        sample = Sample(image, target, mask, position, guide, slope, seen, latent)
        if guide is None:
            sample = self.objective.prepared(self.model, sample)
        elements = self.objective.elements(self.model, sample.mask)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
            errors = self.objective.errors(self.model, sample)
        over = elements.sum() if total is None else total
        return {
            "loss": errors.sum() / over.clamp_min(1),
            "skipped": (elements == 0).float().mean(),
            "per_image": errors.detach() / elements.clamp_min(1),
        }

    def shared(self, batches: Sequence[Batch], ranks: Ranks) -> Sequence[Batch]:
        """Tell every micro-batch how many elements all of them hold, over all ranks.

        The engine takes the mean over micro-batches and ranks. A mean of means would let an element weigh more where
        its micro-batch is mostly masked; with the global number divided by that of the micro-batches, it does not.
        """
        batches = [self._prepared(batch) for batch in batches]
        own = sum(float(self.objective.elements(self.model, batch["mask"]).sum()) for batch in batches)
        everywhere = ranks.sum(torch.tensor([own, float(len(batches))], dtype=torch.float64))
        total = (everywhere[0] / everywhere[1]).float().cpu()
        return [{**batch, "total": total} for batch in batches]

    def _prepared(self, batch: Batch) -> Batch:
        given = {name: batch[name] for name in Sample._fields if name in batch}
        sample = self.objective.prepared(self.model, Sample(**given))
        return {**batch, **{name: each for name, each in sample._asdict().items() if each is not None}}

    def part_of(self, name: str, parameter: nn.Parameter) -> str:
        return "decoder"

    def infer(self, images: Sequence[NDArray[np.uint8]], input_size: int) -> list[Maps[NDArray[np.float32]]]:
        """At the model's own processing resolution: crops say nothing of it."""
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.mixed):
            return self.model.infer_maps(images)

    def preview(self, batch: Mapping[str, Tensor], rows: int) -> list[list[NDArray[np.uint8]]]:
        given = Sample(*(batch[name][:rows] for name in GIVEN))
        with torch.autocast(given.image.device.type, torch.bfloat16, enabled=self.mixed):
            if not self.predicts:
                return self._denoised(given, self.objective.predicted(self.model, given))
            maps, target, mask = self.objective.maps(self.model, given)
        if not self.model.modality.of_depth:
            return _layers(given.image, maps, target, mask)
        sign = self.model.quantity.sign
        guesses = (sign * maps).clamp(-1, 1).cpu().numpy()
        truths = (sign * target).masked_fill(~mask, torch.nan).cpu().numpy()
        return [
            [photograph, coloured(guess, -1.0, 1.0), coloured(truth, -1.0, 1.0)]
            for photograph, guess, truth in zip(_pictures(given.image), guesses, truths, strict=True)
        ]

    def _denoised(self, given: Sample, latent: Tensor) -> list[list[NDArray[np.uint8]]]:
        """Photographs and what is left of them after half of the noise was added and taken away."""
        shown = zip(_pictures(given.image), _pictures(codecs.decode(self.model.codec, latent)), strict=True)
        return [[photograph, denoised] for photograph, denoised in shown]

    def rebuilt(self, state: dict[str, Tensor]) -> Marigold:
        model = empty_model(config_json(self.model))
        kept = {name: tensor for name, tensor in self.model.state_dict().items() if not name.startswith("unet.")}
        assign(model, {**kept, **state}, "gathered weights")
        return model

    def compile_network(self, how: How, dynamic: bool) -> None:
        self.model.unet.compile(dynamic=dynamic)

    def save_memory(self) -> None:
        self.model.unet.enable_gradient_checkpointing()


def _layers(photographs: Tensor, found: Tensor, target: Tensor, mask: Tensor) -> list[list[NDArray[np.uint8]]]:
    """Rows of a photograph, then of every image that was predicted and its target, unknown pixels grey."""
    columns = [_pictures(photographs)]
    for number in range(mask.shape[1]):
        image = slice(3 * number, 3 * number + 3)
        columns += [_pictures(found[:, image]), _pictures(target[:, image].where(mask[:, number : number + 1], 0.0))]
    return [list(row) for row in zip(*columns, strict=True)]


def _pictures(images: Tensor) -> list[NDArray[np.uint8]]:
    """Images (B, 3, H, W) in [-1, 1] as uint8 (H, W, 3) each."""
    pixels = images.detach().permute(0, 2, 3, 1).cpu().numpy() * 127.5 + 127.5
    return list(pixels.clip(0, 255).round().astype(np.uint8))
