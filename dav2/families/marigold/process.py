"""The diffusion process: schedulers of diffusers' by our settings, and the noise that training adds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import DDIMScheduler, DDPMScheduler, LCMScheduler
from torch import Tensor
from torch.nn import functional as F

from dav2.params import ProcessParams

STEPS = 1000
"""Levels of noise; the last is noise alone where ``zero_snr`` holds."""
LEVELS = 10
"""Most sizes of noise that are added up."""
CLASS, FEW_STEPS = "_class_name", "LCMScheduler"
"""Key of a scheduler's configuration, and its value where the model was distilled to a few steps."""
TIMESTEP_SCALING = 10.0
"""Of consistency models on latents: how fast, from level 0 on, a prediction leaves what it was given."""
_OF_INFERENCE = ("set_alpha_to_one", CLASS, "original_inference_steps", "timestep_scaling")
PREDICTIONS = {"v": "v_prediction", "epsilon": "epsilon", "x0": "sample"}
_BASE = {
    "num_train_timesteps": STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Of Stable Diffusion (arXiv 2112.10752)."""


def scheduler_config(process: ProcessParams) -> dict[str, object]:
    """Configuration of the DDIM scheduler that belongs to a process."""
    return {
        **_BASE,
        "prediction_type": PREDICTIONS[process.prediction],
        "rescale_betas_zero_snr": process.zero_snr,
        "timestep_spacing": process.spacing,
    }


def few_steps_config(process: ProcessParams, grid: int) -> dict[str, object]:
    """Configuration of the ``LCMScheduler`` of a model that was distilled on ``grid`` levels of a process."""
    few = {CLASS: FEW_STEPS, "original_inference_steps": grid, "timestep_scaling": TIMESTEP_SCALING}
    return {**scheduler_config(process), **few}


def few_steps(config: Mapping[str, object]) -> bool:
    """Whether a scheduler's configuration is that of a model distilled to a few steps."""
    return config.get(CLASS) == FEW_STEPS


def most_steps(config: Mapping[str, object]) -> int:
    """Most steps of inference with a scheduler of that configuration."""
    most = config.get("original_inference_steps")
    return most if few_steps(config) and isinstance(most, int) else STEPS


def sampler(config: dict[str, object]) -> DDIMScheduler | LCMScheduler:
    """The scheduler that inference steps through; one for each use, since it remembers its timesteps."""
    return (LCMScheduler if few_steps(config) else DDIMScheduler).from_config(dict(config))


def forward_process(config: dict[str, object]) -> DDPMScheduler:
    """The scheduler that training adds noise by."""
    return DDPMScheduler.from_config({name: value for name, value in config.items() if name not in _OF_INFERENCE})


def clean(alphas: Tensor, noisy: Tensor, output: Tensor, timestep: Tensor, prediction: str) -> Tensor:
    """The clean latent that a network's output means.

    With ``z = √ᾱ x + √(1 − ᾱ) ε`` and ``v = √ᾱ ε − √(1 − ᾱ) x``: ``x = √ᾱ z − √(1 − ᾱ) v = (z − √(1 − ᾱ) ε) / √ᾱ``.

    Args:
        alphas: ᾱ of every timestep.
        noisy: z, (B, C, h, w).
        output: (B, C, h, w).
        timestep: int64 (B,).
        prediction: ``v_prediction``, ``epsilon`` or ``sample``.
    """
    signal = alphas.to(noisy.device)[timestep].sqrt()[:, None, None, None]
    rest = (1 - alphas.to(noisy.device)[timestep]).sqrt()[:, None, None, None]
    if prediction == "v_prediction":
        return signal * noisy - rest * output
    return output if prediction == "sample" else (noisy - rest * output) / signal


def stream(seed: int, position: int) -> torch.Generator:
    """Random numbers of one sample of one step: the same however the batch is shared out.

    Args:
        seed: of the run.
        position: number of the sample since the run began, over all ranks and accumulation steps.
    """
    mixed = ((seed + 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 ^ (position + 1) * 0x94D049BB133111EB) % 2**63
    return torch.Generator().manual_seed(mixed)


def draw(seed: int, positions: list[int], shape: tuple[int, ...], process: ProcessParams) -> tuple[Tensor, Tensor]:
    """Timesteps and noise of a batch.

    Args:
        positions: see :func:`stream`.
        shape: (C, h, w) of a latent.

    Returns:
        int64 (B,) in [0, 1000) and float32 (B, C, h, w).
    """
    steps, noises = [], []
    for position in positions:
        generator = stream(seed, position)
        step = int(torch.randint(STEPS, (), generator=generator))
        noise = torch.randn(shape, generator=generator)
        if process.noise != "gaussian":
            strength = process.strength * (step / STEPS if process.noise == "annealed" else 1.0)
            noise = multi_resolution(noise, strength, generator)
            if process.unit == "sample":
                noise = noise / noise.std()
        steps.append(step)
        noises.append(noise)
    stacked = torch.stack(noises)
    if process.noise != "gaussian" and process.unit == "batch":
        stacked = stacked / stacked.std()
    return torch.tensor(steps), stacked


def multi_resolution(noise: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Noise of falling resolution added to ``noise`` (C, h, w), not normalised (arXiv 2312.02145, section 3.2).

    Level i, from 0, has weight ``strengthⁱ`` and 1/rⁱ the size of the level before, r drawn from [2, 4] each time: the
    first is as large as ``noise`` and has weight 1, whatever the strength.
    """
    height, width = noise.shape[-2:]
    total, rows, columns = noise, height, width
    for level in range(LEVELS):
        ratio = 2 + 2 * float(torch.rand((), generator=generator))
        rows, columns = max(1, int(rows / ratio**level)), max(1, int(columns / ratio**level))
        drawn = torch.randn((1, noise.shape[0], rows, columns), generator=generator)
        total = total + strength**level * F.interpolate(drawn, (height, width), mode="bilinear")[0]
        if rows == 1 or columns == 1:
            break
    return total
