"""Networks by name: Stable Diffusion 2's, and small ones of its kind for machines without a GPU."""

from __future__ import annotations

from diffusers import UNet2DConditionModel

from dav2.families.directory import WeightsError

SIZES: dict[str, dict[str, object]] = {
    "tiny": {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "small": {
        "block_out_channels": (96, 192, 288),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 128,
        "attention_head_dim": 6,
        "norm_num_groups": 16,
    },
    "sd2": {
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
}
"""Shape of each; ``sd2`` is that of Stable Diffusion 2."""
TOKENS = 2
"""Of the empty text: its beginning and its end."""


def random_network(size: str, latent: int) -> UNet2DConditionModel:
    """A denoiser of photographs with random weights, drawn from torch's generator as it stands.

    Args:
        size: one of :data:`SIZES`.
        latent: channels of a latent.

    Raises:
        WeightsError: no size is called that.
    """
    if size not in SIZES:
        raise WeightsError(f"no size '{size}' in this family; there are: {', '.join(SIZES)}")
    return UNet2DConditionModel(in_channels=latent, out_channels=latent, **SIZES[size])
