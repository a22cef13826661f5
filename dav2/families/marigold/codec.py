"""Codecs: photographs and maps to latents and back, behind the interface of diffusers' autoencoders.

Whatever the kind, ``encode(x).latent_dist.mode()``, ``decode(z).sample`` and the configuration's ``scaling_factor``,
``latent_channels`` and ``block_out_channels`` are there, so that each also stands in diffusers' own pipelines. A codec
is never trained with the network above it, and computes in float32 whatever that one computes in: the autoencoder of
Stable Diffusion overflows in float16.

Shapes: images float32 (B, 3, H, W) in [-1, 1], latents float32 (B, C, H / f, W / f) of about unit variance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional as F

from dav2.failures import reason
from dav2.families.directory import WeightsError, peek
from dav2.layout import CONFIG

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Name of a codec's weights, as diffusers has it."""
LARGEST_FACTOR = 64


class Exact:
    """What a codec without a distribution says where an autoencoder gives one: a single point."""

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def mode(self) -> Tensor:
        """The point."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """The point, whatever is drawn."""
        return self.mean


class PatchCodec(ModelMixin, ConfigMixin):
    """Linear codec: a latent cell holds the first principal components of one patch of pixels.

    Args:
        patch: side of a patch in pixels, a power of two.
        latent_channels: components kept, at most 3 · patch².
        scaling_factor: 1 / standard deviation of the components over what it was fitted to.
        block_out_channels: its length says the factor, as in autoencoders; worked out where left out.
    """

    config_name = CONFIG

    @register_to_config
    def __init__(
        self,
        patch: int = 8,
        latent_channels: int = 4,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if patch < 1 or patch & (patch - 1) or patch > LARGEST_FACTOR:
            raise ValueError(f"patch must be a power of two up to {LARGEST_FACTOR}, not {patch}")
        if not 1 <= latent_channels <= 3 * patch**2:
            raise ValueError(f"latent_channels must be 1 to {3 * patch**2} for patches of {patch}")
        levels = int(math.log2(patch)) + 1
        self.register_to_config(block_out_channels=(latent_channels,) * levels)
        basis = torch.eye(latent_channels, 3 * patch**2).view(latent_channels, 3, patch, patch)
        self.basis = nn.Parameter(basis, requires_grad=False)
        self.average = nn.Parameter(torch.zeros(3, patch, patch), requires_grad=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[Exact]:
        """Components of every patch, not scaled: (B, 3, H, W) → (B, C, H / f, W / f)."""
        offset = -torch.einsum("cijk,ijk->c", self.basis, self.average)
        latent = F.conv2d(x, self.basis, offset, stride=self.config["patch"])
        return AutoencoderKLOutput(latent_dist=Exact(latent)) if return_dict else (Exact(latent),)

    def decode(self, z: Tensor, return_dict: bool = True, generator: object = None) -> DecoderOutput | tuple[Tensor]:
        """The patches that have these components and no others: (B, C, h, w) → (B, 3, f · h, f · w)."""
        sample = F.conv_transpose2d(z, self.basis, stride=self.config["patch"])
        sample = sample + self.average.repeat(1, *z.shape[-2:])
        return DecoderOutput(sample=sample) if return_dict else (sample,)


class PixelCodec(ModelMixin, ConfigMixin):
    """No codec: latents are the pixels."""

    config_name = CONFIG

    @register_to_config
    def __init__(
        self, latent_channels: int = 3, scaling_factor: float = 1.0, block_out_channels: tuple[int, ...] = (3,)
    ) -> None:
        super().__init__()
        # diffusers asks models for the type and place of their parameters.
        self.none = nn.Parameter(torch.zeros(1), requires_grad=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[Exact]:
        """What is given."""
        return AutoencoderKLOutput(latent_dist=Exact(x)) if return_dict else (Exact(x),)

    def decode(self, z: Tensor, return_dict: bool = True, generator: object = None) -> DecoderOutput | tuple[Tensor]:
        """What is given."""
        return DecoderOutput(sample=z) if return_dict else (z,)


KINDS: dict[str, type[ModelMixin]] = {
    "PatchCodec": PatchCodec,
    "PixelCodec": PixelCodec,
    "AutoencoderKL": AutoencoderKL,
}
"""Class of a codec by the name that stands in its configuration."""


def fit_patches(images: Iterable[Tensor], patch: int, channels: int) -> PatchCodec:
    """The linear codec that loses the least square error on ``images``: principal components, in closed form.

    Covariances are summed in float64, so that the order of batches does not show.

    Args:
        images: batches (B, 3, H, W) in [-1, 1]; sides that are no multiple of ``patch`` lose their rest.

    Raises:
        ValueError: there are no patches, or all are alike.
    """
    size = 3 * patch**2
    total, square, count = torch.zeros(size).double(), torch.zeros(size, size).double(), 0
    for batch in images:
        rows = F.unfold(batch.double(), patch, stride=patch).transpose(1, 2).reshape(-1, size)
        total += rows.sum(dim=0)
        square += rows.T @ rows
        count += len(rows)
    if count == 0:
        raise ValueError("a patch codec needs images to be fitted to; there are none")
    mean = total / count
    values, vectors = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    basis, variance = vectors.flip(1).T[:channels], values.flip(0)[:channels].clamp_min(0)
    if float(variance.sum()) < 1e-9:
        raise ValueError("a patch codec cannot be fitted to images without any detail")
    # A component and its opposite explain the same: the entry that says most is made positive.
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign()
    codec = PatchCodec(patch, channels, scaling_factor=float(variance.mean().rsqrt()))
    codec.basis.data = basis.float().reshape(channels, 3, patch, patch)
    codec.average.data = mean.float().reshape(3, patch, patch)
    return codec.eval()


def factor(codec: ModelMixin) -> int:
    """Pixels of an image per latent cell, along one side."""
    return int(2 ** (len(codec.config["block_out_channels"]) - 1))


def width(codec: ModelMixin) -> int:
    """Channels of its latents."""
    return int(codec.config["latent_channels"])


def encode(codec: ModelMixin, images: Tensor) -> Tensor:
    """Latents of images (B, 3, H, W) in [-1, 1], scaled; the middle of the distribution where the codec has one."""
    with torch.autocast(images.device.type, enabled=False):
        latent: Tensor = codec.encode(images.float()).latent_dist.mode() * codec.config["scaling_factor"]
    return latent


def decode(codec: ModelMixin, latents: Tensor) -> Tensor:
    """Images (B, 3, H, W) of scaled latents; values outside [-1, 1] are left as they are."""
    with torch.autocast(latents.device.type, enabled=False):
        images: Tensor = codec.decode(latents.float() / codec.config["scaling_factor"]).sample
    return images


def encode_map(codec: ModelMixin, values: Tensor) -> Tensor:
    """Latents of maps (B, H, W) in [-1, 1], each written as a grey image."""
    return encode(codec, values[:, None].expand(-1, 3, -1, -1))


def decode_map(codec: ModelMixin, latents: Tensor) -> Tensor:
    """Maps (B, H, W), about [-1, 1], of latents: the mean of the decoded colours."""
    return decode(codec, latents).mean(dim=1)


def encode_images(codec: ModelMixin, images: Tensor) -> Tensor:
    """Latents (B, n · C, h, w) of n images each, (B, 3 n, H, W) in [-1, 1], one after the other."""
    return encode(codec, images.unflatten(1, (-1, 3)).flatten(0, 1)).unflatten(0, (len(images), -1)).flatten(1, 2)


def decode_images(codec: ModelMixin, latents: Tensor) -> Tensor:
    """Images (B, 3 n, H, W), about [-1, 1], of latents (B, n · C, h, w)."""
    apart = latents.unflatten(1, (-1, width(codec))).flatten(0, 1)
    return decode(codec, apart).unflatten(0, (len(latents), -1)).flatten(1, 2)


def read_codec(folder: Path) -> ModelMixin:
    """A codec that a folder holds in diffusers' layout, in evaluation mode and float32; nothing is unpickled.

    Raises:
        WeightsError: there is none, or it is damaged or of another kind.
    """
    kind = peek(folder).get("_class_name")
    if kind not in KINDS:
        read_any = "it has no config.json" if kind is None else f"it is a {kind}"
        raise WeightsError(f"{folder} holds no codec that can be used: {read_any}; expected {', '.join(KINDS)}")
    try:
        codec = KINDS[kind].from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{folder}: the codec cannot be read: {reason(error)}") from None
    return codec.requires_grad_(False).eval()


def described(codec: ModelMixin) -> dict[str, Any]:
    """What it takes to build a codec again, without its weights."""
    return {"_class_name": type(codec).__name__, **plain(codec.config)}


def built(description: dict[str, Any]) -> ModelMixin:
    """A codec of that description whose weights mean nothing yet.

    Raises:
        ValueError: no codec is called that.
    """
    kind = description.get("_class_name")
    if kind not in KINDS:
        raise ValueError(f"no codec is called {kind!r}; there are: {', '.join(KINDS)}")
    return KINDS[kind].from_config(dict(description)).requires_grad_(False).eval()


def plain(config: Mapping[str, object]) -> dict[str, Any]:
    """A diffusers configuration as JSON takes it, without what only says where it came from."""
    kept = {name: value for name, value in dict(config).items() if not name.startswith("_")}
    return dict(json.loads(json.dumps(kept)))
