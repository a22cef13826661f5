"""The objective of a model that needs a few steps: consistency distillation of one that needs many (arXiv 2310.04378).

Three networks of one shape. The *teacher* is what the run starts from and never changes; the one in training begins as
it; the *target* is a moving average of that. Noise is added to a map, the teacher takes one step of DDIM to the level
before, and the network learns to predict from where the step began what the target predicts from where it ended.

As published for Marigold (arXiv 2505.09358): five levels, plain noise whatever ``process.noise`` says, and no guidance,
since no text is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from dav2.families.marigold.consistency import consistent, grid_levels, huber, solver_step
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Diffusion, Sample, latents_of, of_cells
from dav2.families.marigold.process import few_steps_config, sampler, stream
from dav2.families.marigold.targets import latent_mask
from dav2.params import LcmParams, ProcessParams, RefineParams
from dav2.training.ema import Ema

TARGET = "target"
"""Name of the average whose predictions are learnt, and of its file in a checkpoint."""


class Distillation(Diffusion):
    """See the module. Errors are those of latents, over cells that are valid."""

    def __init__(
        self, process: ProcessParams, seed: int, refine: RefineParams | None = None, lcm: LcmParams | None = None
    ) -> None:
        super().__init__(process, seed, refine, lcm)
        self.levels = sampler(few_steps_config(process, self.lcm.grid))

    def begins(self, model: Marigold) -> None:
        teacher = deepcopy(model.unet).requires_grad_(False).eval()
        self.beside = (teacher, deepcopy(teacher))

    def averages(self, model: Marigold) -> Mapping[str, Ema]:
        return {TARGET: Ema(model.unet, self.lcm.decay, ramp=False, held=self.beside[1])}

    def errors(self, model: Marigold, sample: Sample) -> Tensor:
        seen, clean = latents_of(model, sample)
        level, earlier, noise = self._drawn(sample.position, clean)
        noisy = self.levels.add_noise(clean, noise, level)
        found = consistent(self.levels, noisy, model.denoise(seen, noisy, level).float(), level)
        teacher, target = self.beside
        with torch.no_grad():
            output = model.denoise(seen, noisy, level, teacher).float()
            stepped = solver_step(self.levels, noisy, output, level, earlier)
            output = model.denoise(seen, stepped, earlier, target).float()
            wanted = consistent(self.levels, stepped, output, earlier)
        wrong = found - wanted
        each = wrong.square() if self.lcm.loss == "l2" else huber(wrong, self.lcm.huber)
        cells = of_cells(latent_mask(sample.mask, model.factor), wrong.shape[1])
        return each.where(cells, 0.0).sum(dim=(1, 2, 3))

    def _drawn(self, position: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Level, the one before and noise of every sample: functions of its number alone."""
        draws, noises = [], []
        for number in position.tolist():
            generator = stream(self.seed, number)
            draws.append(int(torch.randint(self.lcm.grid, (), generator=generator)))
            noises.append(torch.randn(tuple(like.shape[1:]), generator=generator))
        level, earlier = grid_levels(self.lcm.grid, torch.tensor(draws, device=like.device))
        return level, earlier, torch.stack(noises).to(like)
