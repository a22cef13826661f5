"""Consistency functions on latents: from any level of noise to the clean latent in one pass (arXiv 2310.04378).

``f(z, t) = c_skip(t) · z + c_out(t) · x̂(z, t)`` with ``c_skip = σ² / ((s t)² + σ²)``, ``c_out = s t / √((s t)² + σ²)``,
σ = 0.5 and s the scheduler's ``timestep_scaling``: at t = 0 it is z itself, whatever the network says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import LCMScheduler
from torch import Tensor

from dav2.families.marigold.process import clean


def consistent(scheduler: LCMScheduler, noisy: Tensor, output: Tensor, timestep: Tensor) -> Tensor:
    """The consistency function of a network.

    Args:
        scheduler: its levels, and what the network predicts.
        noisy: z, (B, C, h, w).
        output: of the network, (B, C, h, w).
        timestep: int64 (B,) in [0, 1000).
    """
    found = clean(scheduler.alphas_cumprod, noisy, output, timestep, scheduler.config["prediction_type"])
    skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep[:, None, None, None])
    return skip * noisy + out * found


def solver_step(scheduler: LCMScheduler, noisy: Tensor, output: Tensor, timestep: Tensor, earlier: Tensor) -> Tensor:
    """One step of DDIM to a level of less noise.

    Args:
        scheduler, noisy, output: as for :func:`consistent`.
        timestep: int64 (B,), levels of ``noisy``.
        earlier: int64 (B,), levels to go to; level 0 still holds a little noise.
    """
    alphas = scheduler.alphas_cumprod.to(noisy.device)
    found = clean(alphas, noisy, output, timestep, scheduler.config["prediction_type"])
    old, new = (alphas[each][:, None, None, None] for each in (timestep, earlier))
    noise = (noisy - old.sqrt() * found) / (1 - old).sqrt()
    return new.sqrt() * found + (1 - new).sqrt() * noise


def sample_few(
    scheduler: LCMScheduler, denoise: Callable[[Tensor, Tensor], Tensor], drawn: Tensor, steps: int
) -> Tensor:
    """Clean latents in a few steps, each but the last followed by noise of the next level.

    Args:
        scheduler: of the model.
        denoise: network passes, of latents (B, C, h, w) at a level, int64 ().
        drawn: float32 (B, steps · C, h, w), the noise to begin from and then that of each further step.
        steps: 1 to the scheduler's ``original_inference_steps``.
    """
    scheduler.set_timesteps(steps, device=drawn.device)
    latent, *noises = drawn.chunk(steps, dim=1)
    levels = scheduler.timesteps
    for number, level in enumerate(levels):
        here = level.expand(len(latent))
        latent = consistent(scheduler, latent, denoise(latent, level).float(), here)
        if number < len(noises):
            latent = scheduler.add_noise(latent, noises[number], levels[number + 1].expand(len(latent)))
    return latent


def grid_levels(grid: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Levels of noise and the ones before them.

    Args:
        grid: how many levels there are, evenly over the 1000: of 5 they are 199, 399, 599, 799, 999.
        draws: int64, which of them, from 0.

    Returns:
        Both int64; before the first comes level 0.
    """
    skipped = 1000 // grid
    levels = (draws + 1) * skipped - 1
    return levels, (levels - skipped).clamp_min(0)


def huber(difference: Tensor, c: float) -> Tensor:
    """Pseudo-Huber: ``√(Δ² + c²) − c``."""
    return torch.sqrt(difference.square() + c**2) - c
