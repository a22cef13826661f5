"""A network that refines another model's map: the bridge between feed-forward models and diffusion.

Like BetterDepth (arXiv 2407.17952) it sees the photograph, the map of a trained model (here the *guide*, as a rule a
student) and the latent that it denoises: twelve channels on latents of four. What it predicts is a *correction*: the
decoded latent of the guide's map plus what the network adds, less the decoded latent of the guide's map. The
correction is added to the map itself, so that nothing of it is lost in the codec, and where the network adds nothing
the map is the guide's, bit for bit.

Everything happens where the guide sees the photograph: its input is prepared, and its output brought to the
photograph's resolution, by its own predictor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from dav2 import families
from dav2.families.family import Predictor
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.config import MarigoldConfig
from dav2.families.marigold.model import Marigold, about, in_its_precision
from dav2.families.marigold.process import STEPS, clean, forward_process
from dav2.families.marigold.resolution import padded
from dav2.families.marigold.targets import QUANTILES
from dav2.maps import Maps

if TYPE_CHECKING:
    from diffusers import ModelMixin, UNet2DConditionModel

FLAT = 1e-6
"""Spread of a map, as a share of its largest value, below which it counts as constant and is not corrected."""


class Refiner(Marigold):
    """See :class:`dav2.families.marigold.model.Marigold`.

    Args:
        guide: the model whose map is refined; frozen, always in evaluation mode and float32.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        codec: ModelMixin,
        scheduler: dict[str, object],
        prompt: Tensor,
        config: MarigoldConfig,
        guide: Any,
    ) -> None:
        super().__init__(unet, codec, scheduler, prompt, config)
        self.guide = guide.requires_grad_(False).eval()
        self._alphas: Tensor = forward_process(scheduler).alphas_cumprod

    def train(self, mode: bool = True) -> Refiner:
        """Training mode for all but the guide."""
        super().train(mode)
        self.guide.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # What is refined is what the guide predicts in float32, whatever the network computes in.
        guide = self._modules.pop("guide")
        try:
            super()._apply(fn, recurse)
        finally:
            self._modules["guide"] = guide
        assert guide is not None
        guide._apply(lambda tensor: in_its_precision(fn, tensor))
        return self

    def guided_by(self) -> Predictor:
        """The guide under test."""
        return families.get(self.guide.family).predictor(self.guide)

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """Height and width that guide and network see of a photograph, without the margin of the codec."""
        shape: tuple[int, int] = self.guide.network_shape(height, width, input_size)
        return shape

    def correction(self, images: Tensor, values: Tensor) -> Tensor:
        """What is added to maps.

        Args:
            images: float32 (B, 3, h, w) in [-1, 1].
            values: float32 (B, h, w), the guide's maps between their quantiles (:func:`scaled`).

        Returns:
            float32 (B, h, w), in the unit of ``values``.
        """
        height, width = values.shape[-2:]
        tall, wide = padded((height, width), self.factor)
        margin = (0, wide - width, 0, tall - height)
        photograph = codecs.encode(self.codec, F.pad(images, margin, mode="replicate"))
        begun = codecs.encode_map(self.codec, F.pad(values.clamp(-1, 1)[:, None], margin, mode="replicate")[:, 0])
        start = torch.zeros_like(begun)
        level = torch.full((len(start),), STEPS - 1, device=start.device)
        output = self.denoise(torch.cat([photograph, begun], dim=1), start, level).float()
        added = clean(self._alphas, start, output, level, str(self.scheduler["prediction_type"]))
        with torch.no_grad():
            before = codecs.decode_map(self.codec, begun)
        return (codecs.decode_map(self.codec, begun + added) - before)[:, :height, :width]

    def refined(self, images: Tensor, maps: Tensor) -> Tensor:
        """Maps with their corrections.

        Args:
            images: float32 (B, 3, h, w) in [-1, 1].
            maps: float32 (B, h, w), as the guide gives them.
        """
        values, spread = scaled(maps)
        return maps + self.correction(images, values) * (spread / 2)

    def infer_maps(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None, **how: object
    ) -> list[Maps[NDArray[np.float32]]]:
        """Refined maps of uint8 images (H, W, 3), in the guide's unit, at their resolution.

        Args:
            input_size: as the guide takes it.
            how: one step and one prediction is all that there is.

        Raises:
            ValueError: the guide sees no photograph at that size, or several steps or predictions are asked for.
        """
        if (chosen := self.how(**how)).steps > 1 or chosen.ensemble > 1:
            raise ValueError("a refiner predicts in one step and from no noise; steps and ensemble must be 1")
        native, enlarge = self.config.input_size, 1.0
        if input_size is not None:
            families.of_model(self.guide).check_input_size(self.guide, input_size)
            enlarge = input_size / native
        predictor = RefinerPredictor(self)
        planes = [predictor.prepare(rgb, enlarge) for rgb in images]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, plane in enumerate(planes):
            groups[tuple(plane.shape)].append(index)
        found: dict[int, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for members in groups.values():
                batch = predictor.predict(torch.stack([planes[index] for index in members]).to(self.device))
                for index, each in zip(members, batch, strict=True):
                    shape = (images[index].shape[0], images[index].shape[1])
                    found[index] = predictor.resized(each, shape).cpu().numpy()
        return [Maps(self.quantity, found[index]) for index in range(len(images))]


class RefinerPredictor(Predictor):
    """A refiner under test. Its input is that of the guide with the photograph in [-1, 1] after it: (6, h, w)."""

    def __init__(self, model: Refiner) -> None:
        self.model, self.guide = model, model.guided_by()
        self.quantity, self.device = model.quantity, model.device

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        given = self.guide.prepare(rgb, enlarge)
        return torch.cat([given, seen(rgb, (given.shape[-2], given.shape[-1]))])

    def predict(self, batch: Tensor) -> Tensor:
        given, images = batch.float().split([batch.shape[1] - 3, 3], dim=1)
        with torch.autocast(batch.device.type, enabled=False):
            maps = self.guide.predict(given).float()
        return self.model.refined(images, maps)

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return self.guide.resized(prediction, shape)

    def example(self) -> Tensor:
        given = self.guide.example()
        return torch.cat([given, given.new_zeros(len(given), 3, *given.shape[-2:])], dim=1)

    def describe(self) -> dict[str, object]:
        return about(self.model, steps=1, ensemble=1)


def seen(rgb: NDArray[np.uint8], shape: tuple[int, int]) -> Tensor:
    """A photograph uint8 (H, W, 3) as float32 (3, h, w) in [-1, 1]: area average when shrinking, cubic otherwise."""
    if rgb.shape[:2] != shape:
        shrinks = shape[0] < rgb.shape[0] and shape[1] < rgb.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        rgb = cv2.resize(rgb, (shape[1], shape[0]), interpolation=method).astype(np.uint8, copy=False)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float() / 127.5 - 1


def scaled(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps whose 2 % and 98 % quantiles are -1 and 1, not clipped, and what lay between these: (B, h, w) and (B, 1, 1).

    A constant map becomes 0 everywhere, and its spread 0.
    """
    # By sorting: torch.quantile refuses more than 16 million values.
    ordered = maps.flatten(1).sort(dim=1).values
    places = [round(share * (ordered.shape[1] - 1)) for share in QUANTILES]
    low, high = (ordered[:, place, None, None] for place in places)
    spread = high - low
    flat = spread <= FLAT * torch.maximum(low.abs(), high.abs())
    values = ((maps - low) / spread.masked_fill(flat, 1) * 2 - 1).masked_fill(flat, 0)
    return values, spread.masked_fill(flat, 0)
