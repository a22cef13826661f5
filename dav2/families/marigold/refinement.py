"""The objective of a refiner: corrections that agree with the target where the guide does not contradict it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Objective, Sample
from dav2.families.marigold.refiner import Refiner, scaled
from dav2.families.marigold.surgery import CONDITIONS
from dav2.params import RefineParams


class Agreed(NamedTuple):
    """What a guide's map and a target say together.

    Attributes:
        target: float32 (B, H, W), in the unit of the guide's map.
        mask: bool (B, H, W), valid pixels in patches where both agree.
        slope: float32 (B,), what an error in the guide's unit is in the target's.
    """

    target: Tensor
    mask: Tensor
    slope: Tensor


class Refinement(Objective):
    """Absolute error of the corrected map and of its steps between neighbours (after arXiv 2407.17952).

    The guide's map is first fitted to the target by least squares; where the mean difference of a patch is still
    larger than ``agree``, the guide is wrong about more than detail, and the patch does not count: a refiner that
    learnt to mend it would learn to distrust a guide that has seen far more. Errors are in the target's unit, so that
    a map that the fit has to stretch weighs no less.
    """

    begins_from_zeros = True
    conditions = CONDITIONS

    def elements(self, model: Marigold, mask: Tensor) -> Tensor:
        return mask.flatten(1).sum(dim=1)

    def prepared(self, model: Marigold, sample: Sample) -> Sample:
        assert isinstance(model, Refiner)
        values = scaled(guide_maps(model, sample.image))[0]
        found = agreed(values, sample.target.to(values), sample.mask.to(values.device), self.refine)
        return sample._replace(target=found.target, mask=found.mask, slope=found.slope, guide=values)

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        assert isinstance(model, Refiner) and sample.guide is not None and sample.slope is not None
        wrong = sample.guide + model.correction(sample.image, sample.guide) - sample.target
        total = wrong.abs().where(sample.mask, 0.0).sum(dim=(1, 2))
        for dimension in (1, 2):
            last = wrong.shape[dimension] - 1
            both = sample.mask.narrow(dimension, 1, last) & sample.mask.narrow(dimension, 0, last)
            steps = wrong.diff(dim=dimension).abs().where(both, 0.0)
            total = total + self.refine.gradient * steps.sum(dim=(1, 2))
        return sample.slope * total

    def maps(self, model: Marigold, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        given = self.prepared(model, sample)
        assert isinstance(model, Refiner) and given.guide is not None
        return given.guide + model.correction(given.image, given.guide), given.target, given.mask


def guide_maps(model: Refiner, images: Tensor) -> Tensor:
    """The guide's maps of photographs (B, 3, H, W) in [-1, 1], at the size they have: float32 (B, H, W)."""
    predictor = model.guided_by()
    enlarge = min(images.shape[-2:]) / model.config.input_size
    pixels = (images.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).to("cpu", torch.uint8).numpy()
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        given = torch.stack([predictor.prepare(each, enlarge) for each in pixels])
        return predictor.predict(given.to(model.device)).float()


def agreed(values: Tensor, target: Tensor, mask: Tensor, settings: RefineParams) -> Agreed:
    """Bring targets into the unit of maps, and leave out where both contradict each other.

    Args:
        values: float32 (B, H, W), the guide's maps between their quantiles.
        target: float32 (B, H, W) in [-1, 1].
        mask: bool (B, H, W).
    """
    known = mask.to(values.dtype)
    count = known.sum(dim=(1, 2), keepdim=True).clamp_min(1)

    def mean(of: Tensor) -> Tensor:
        return (of * known).sum(dim=(1, 2), keepdim=True) / count

    centred, wanted = values - mean(values), target - mean(target)
    slope = mean(centred * wanted) / mean(centred.square()).clamp_min(1e-8)
    # Turned upside down, constant, or without a valid pixel, a map cannot be refined.
    usable = slope > settings.least_slope
    safe = slope.where(usable, 1.0)
    difference = (safe * centred - wanted).abs() * known
    # The target spans 2 between its quantiles.
    agrees = _patch_means(difference, known, settings.patch) <= 2 * settings.agree
    inside = mask & usable & agrees
    return Agreed(wanted / safe + mean(values), inside, safe[:, 0, 0])


def _patch_means(values: Tensor, known: Tensor, patch: int) -> Tensor:
    """Mean over the known pixels of each patch, at every pixel of it; those at the edge may be smaller."""
    height, width = values.shape[-2:]
    margin = (0, -width % patch, 0, -height % patch)
    total, number = (F.avg_pool2d(F.pad(each, margin)[:, None], patch)[:, 0] for each in (values, known))
    means = total / number.clamp_min(0.5 / patch**2)
    return means.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, :height, :width]
