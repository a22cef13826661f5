"""Small models with random weights, and photographs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.marigold import codec as codecs
from dav2.families.marigold import surgery
from dav2.families.marigold.config import MarigoldConfig
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.process import scheduler_config
from dav2.families.marigold.refiner import Refiner
from dav2.families.marigold.sizes import random_network
from dav2.maps import Quantity
from dav2.params import ProcessParams


def small_vae() -> AutoencoderKL:
    """An autoencoder of latents of four channels, eight times smaller."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    ).eval()


def photograph(height: int = 60, width: int = 84, seed: int = 0) -> NDArray[np.uint8]:
    """Waves of colour with noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 20
    waves = np.stack([np.sin(a * x + b * y) for a, b in rng.uniform(0.5, 3, (3, 2))], axis=-1)
    return (waves * 90 + 128 + rng.normal(0, 10, waves.shape)).clip(0, 255).astype(np.uint8)


def patch_codec(channels: int = 4) -> codecs.PatchCodec:
    """A patch codec fitted to a few photographs."""
    images = [torch.from_numpy(photograph(64, 64, seed)).permute(2, 0, 1)[None] / 127.5 - 1 for seed in range(6)]
    return codecs.fit_patches(images, 8, channels)


def model(
    codec: Any = None, process: ProcessParams | None = None, seed: int = 0, conditions: int = 1, **config: Any
) -> Marigold:
    """The smallest network of this family, adapted to photographs."""
    torch.manual_seed(seed)
    codec = small_vae() if codec is None else codec
    unet = random_network("tiny", codecs.width(codec))
    scheduler = scheduler_config(process or ProcessParams())
    settings = MarigoldConfig(**{"size": "tiny", "input_size": 64, "adapted": conditions > 0, **config})
    surgery.fit(unet, codecs.width(codec), conditions, len(settings.modality.images))
    return Marigold(unet.eval(), codec, scheduler, torch.randn(1, 2, 32), settings).eval()


def student(input_size: int = 56) -> DepthAnything:
    """The smallest network of the other family, with random weights."""
    torch.manual_seed(1)
    return DepthAnything(ModelConfig("vitn", None, input_size)).eval()


def refiner(
    codec: Any = None, process: ProcessParams | None = None, seed: int = 0, guide: Any = None, silent: bool = False
) -> Refiner:
    """The smallest network of this family, which sees a student's map beside the photograph."""
    given = model(codec, process, seed, conditions=surgery.CONDITIONS, begins="zeros", quantity=Quantity.DISPARITY)
    if silent:
        surgery.silence(given.unet)
    guide = student() if guide is None else guide
    config = replace(given.config, input_size=guide.config.input_size)
    return Refiner(given.unet, given.codec, given.scheduler, given.prompt, config, guide).eval()
