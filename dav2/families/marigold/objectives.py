"""What a network is trained to do, one class each; all share one loop, one model and one way to count.

Each gives, for every image, a sum of errors and how many elements it is over. The task divides the sum of the global
batch by its number, so that shares of a batch never change what an element weighs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from dav2.families.marigold import codec as codecs
from dav2.families.marigold.layer_errors import layer_errors
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.process import PREDICTIONS, STEPS, clean, draw, forward_process, scheduler_config
from dav2.families.marigold.targets import latent_mask
from dav2.params import LcmParams, ProcessParams, RefineParams

if TYPE_CHECKING:
    from dav2.training.ema import Ema

HOLD = 0.1
"""Weight of the error before alignment, which holds sign and range: inference clips what lies outside of them."""
SMALLEST_VARIANCE = 1e-8
"""Of a prediction, below which it counts as constant; targets spread over [-1, 1]."""


class Sample(NamedTuple):
    """One micro-batch.

    Attributes:
        image: photographs, float32 (B, 3, H, W) in [-1, 1].
        target: float32 (B, H, W) in [-1, 1]; in the unit of ``guide`` where there is one. Of layers the n images
            that they are written as, (B, 3 n, H, W).
        mask: bool (B, H, W), or (B, n, H, W).
        position: int64 (B,), numbers of the samples.
        guide: maps that are refined, float32 (B, H, W) between their quantiles.
        seen: latents of the photographs, where they are known: image and target are empty then.
        latent: likewise those of the targets; ``mask`` is then true where a whole cell counts.
        slope: float32 (B,), what an error in the unit of ``guide`` is in that of the target.
    """

    image: Tensor
    target: Tensor
    mask: Tensor
    position: Tensor
    guide: Tensor | None = None
    slope: Tensor | None = None
    seen: Tensor | None = None
    latent: Tensor | None = None


class Objective(ABC):
    """One way to train a network.

    Args:
        process: how noise is added, and what the network predicts.
        seed: of noise and levels.
        refine: what a refiner learns from.
        lcm: how a model is distilled.

    Attributes:
        begins_from_zeros: whether inference begins from zeros instead of noise.
        conditions: latents that the network sees beside the one that it denoises.
        beside: networks that the errors need and that are not trained; no part of the model or of its checkpoint.
    """

    begins_from_zeros = False
    conditions = 1
    beside: tuple[nn.Module, ...] = ()

    def __init__(
        self, process: ProcessParams, seed: int, refine: RefineParams | None = None, lcm: LcmParams | None = None
    ) -> None:
        self.process, self.seed = process, seed
        self.refine, self.lcm = refine or RefineParams(), lcm or LcmParams()
        self.prediction = PREDICTIONS[process.prediction]
        self.scheduler = forward_process(scheduler_config(process))

    def begins(self, model: Marigold) -> None:
        """Called once with the network as the run begins, before anything of a checkpoint is read."""
        self.beside = ()

    def averages(self, model: Marigold) -> Mapping[str, Ema]:
        """See :meth:`dav2.training.task.Task.averages`."""
        return {}

    @abstractmethod
    def elements(self, model: Marigold, mask: Tensor) -> Tensor:
        """How many elements each image's error is summed over: int64 (B,)."""

    def prepared(self, model: Marigold, sample: Sample) -> Sample:
        """A sample with all that its error needs, before any of it is counted."""
        return sample

    @abstractmethod
    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        """Sum of errors of each image, float32 (B,); 0 where it has no elements."""

    def predicted(self, model: Marigold, sample: Sample) -> Tensor:
        """The clean latent that the network names in one step, for pictures."""
        seen = codecs.encode(model.codec, sample.image)
        start = blank(model, seen)
        if not self.begins_from_zeros:
            start = _noise(start, self.seed, sample.position)
        return self._at_once(model, seen, start)

    def maps(self, model: Marigold, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        """For pictures: maps (B, H, W), or images (B, 3 n, H, W), named in one step; targets and masks like them."""
        return decoded(model, self.predicted(model, sample)), sample.target, sample.mask

    def _at_once(self, model: Marigold, seen: Tensor, start: Tensor) -> Tensor:
        last = torch.full((len(seen),), STEPS - 1, device=seen.device)
        output = model.denoise(seen, start, last).float()
        return clean(self.scheduler.alphas_cumprod, start, output, last, self.prediction)


class Diffusion(Objective):
    """Denoise from any level (arXiv 2312.02145, section 3.2): squared error of v, of the noise, or of the map."""

    def elements(self, model: Marigold, mask: Tensor) -> Tensor:
        return latent_mask(mask, model.factor).flatten(1).sum(dim=1) * model.latent

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        seen, target = latents_of(model, sample)
        return self.denoised(model, seen, target, latent_mask(sample.mask, model.factor), sample.position)

    def denoised(self, model: Marigold, seen: Tensor, target: Tensor, cells: Tensor, position: Tensor) -> Tensor:
        """Sum of squared errors of each image over ``cells``, at the levels that its number draws.

        Args:
            cells: bool (B, h, w), or (B, n, h, w) where ``target`` holds n latents.
        """
        timestep, noise = draw(self.seed, position.tolist(), tuple(target.shape[1:]), self.process)
        timestep, noise = timestep.to(target.device), noise.to(target.device)
        noisy = self.scheduler.add_noise(target, noise, timestep)
        wanted = {
            "v_prediction": lambda: self.scheduler.get_velocity(target, noise, timestep),
            "epsilon": lambda: noise,
            "sample": lambda: target,
        }[self.prediction]()
        output = model.denoise(seen, noisy, timestep).float()
        return _squares(output, wanted, cells)


class OneStepLatent(Diffusion):
    """The clean latent at once, from zeros at the last level (arXiv 2409.18124): squared error of latents."""

    begins_from_zeros = True

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        seen, target = latents_of(model, sample)
        found = self._at_once(model, seen, torch.zeros_like(target))
        return _squares(found, target, latent_mask(sample.mask, model.factor))


class OneStepDecoded(Objective):
    """The map at once, judged behind the decoder (arXiv 2409.11355): absolute error after least squares.

    Layers are judged without alignment, normals by their angle (:mod:`dav2.families.marigold.layer_errors`). Three
    traps of the published code are not here: predictions are not clamped before the loss, where the gradient would
    end; a fit that would turn the map upside down counts as no fit; and since least squares leaves sign and range free,
    which inference does not, a tenth of the error before alignment is added.
    """

    begins_from_zeros = True

    def elements(self, model: Marigold, mask: Tensor) -> Tensor:
        return mask.flatten(1).sum(dim=1)

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        seen = codecs.encode(model.codec, sample.image)
        found = decoded(model, self._at_once(model, seen, blank(model, seen)))
        if not model.modality.of_depth:
            return layer_errors(model.modality, found, sample.target, sample.mask)
        return aligned_errors(found, sample.target, sample.mask)


class Photographs(Diffusion):
    """Denoise photographs alone, as Stable Diffusion does: what others start from where there is no such model."""

    conditions = 0

    def elements(self, model: Marigold, mask: Tensor) -> Tensor:
        return torch.full((len(mask),), mask[0].numel() // model.factor**2 * model.latent, device=mask.device)

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        photograph = codecs.encode(model.codec, sample.image)
        everywhere = torch.ones_like(photograph[:, 0], dtype=torch.bool)
        return self.denoised(model, photograph[:, :0], photograph, everywhere, sample.position)

    def predicted(self, model: Marigold, sample: Sample) -> Tensor:
        photograph = codecs.encode(model.codec, sample.image)
        timestep = torch.full((len(photograph),), STEPS // 2, device=photograph.device)
        noisy = self.scheduler.add_noise(photograph, _noise(photograph, self.seed, sample.position), timestep)
        output = model.denoise(photograph[:, :0], noisy, timestep).float()
        return clean(self.scheduler.alphas_cumprod, noisy, output, timestep, self.prediction)


def latents_of(model: Marigold, sample: Sample) -> tuple[Tensor, Tensor]:
    """Latents of photographs and targets: as they are known, or encoded now."""
    if sample.seen is not None and sample.latent is not None:
        return sample.seen, sample.latent
    encode = codecs.encode_map if model.modality.of_depth else codecs.encode_images
    return codecs.encode(model.codec, sample.image), encode(model.codec, sample.target)


def decoded(model: Marigold, latents: Tensor) -> Tensor:
    """Maps (B, H, W), about [-1, 1], or the images of layers, (B, 3 n, H, W), that latents mean."""
    return (codecs.decode_map if model.modality.of_depth else codecs.decode_images)(model.codec, latents)


def blank(model: Marigold, seen: Tensor) -> Tensor:
    """Zeros where the latents of what the model predicts go, for photographs ``seen`` (B, C, h, w)."""
    channels = model.latent * len(model.modality.images)
    return seen.new_zeros(len(seen), channels, *seen.shape[-2:])


def aligned_errors(found: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Sum over each mask of ``|s · found + t − target| + 0.1 · |found − target|``, s ≥ 0 and t by least squares.

    Args:
        found: float32 (B, H, W).
        target: likewise, in [-1, 1].
        mask: bool (B, H, W).
    """
    # Without any valid pixel all are used, so that nothing is divided by 0, and none is counted.
    used = mask | ~mask.any(dim=-1).any(dim=-1)[:, None, None]
    count = used.sum(dim=(1, 2), keepdim=True)

    def mean(values: Tensor) -> Tensor:
        return values.where(used, 0.0).sum(dim=(1, 2), keepdim=True) / count

    centred = found - mean(found)
    # A constant prediction has no variance; the floor gives it scale 0 and a finite gradient.
    scale = mean(centred * target) / mean(centred.square()).clamp_min(SMALLEST_VARIANCE)
    aligned = scale.clamp_min(0) * centred + mean(target)
    error = (aligned - target).abs() + HOLD * (found - target).abs()
    return error.where(mask, 0.0).sum(dim=(1, 2))


def of_cells(cells: Tensor, channels: int) -> Tensor:
    """Which values of n latents of together ``channels`` channels count, of cells (B, h, w) or (B, n, h, w)."""
    return cells[:, None] if cells.ndim == 3 else cells.repeat_interleave(channels // cells.shape[1], dim=1)


def _squares(found: Tensor, wanted: Tensor, cells: Tensor) -> Tensor:
    return (found - wanted).square().where(of_cells(cells, wanted.shape[1]), 0.0).sum(dim=(1, 2, 3))


def _noise(like: Tensor, seed: int, position: Tensor) -> Tensor:
    plain = ProcessParams(noise="gaussian")
    return draw(seed, position.tolist(), tuple(like.shape[1:]), plain)[1].to(like)
