"""The model: a denoiser, its codec, its schedule, and the embedding of no text."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import LCMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dav2.families.family import described
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.config import How, MarigoldConfig
from dav2.families.marigold.consistency import sample_few
from dav2.families.marigold.ensemble import Reduction, merge
from dav2.families.marigold.modalities import Modality, merge_layers
from dav2.families.marigold.process import few_steps, most_steps, sampler
from dav2.families.marigold.resolution import enlarged, padded, processed, to_network
from dav2.families.marigold.targets import from_unit
from dav2.maps import Maps, Quantity

if TYPE_CHECKING:
    from diffusers import ModelMixin

AT_ONCE = {"cpu": 4, "cuda": 16}
"""Latents that go through the network together when an ensemble is predicted."""


class Marigold(nn.Module):
    """See :class:`dav2.families.family.Model`.

    Args:
        unet: diffusers' ``UNet2DConditionModel``.
        codec: see :mod:`dav2.families.marigold.codec`.
        scheduler: configuration of the DDIM scheduler.
        prompt: float32 (1, tokens, width), the embedding of the empty text.
        config: the rest.
    """

    family = "marigold"

    def __init__(
        self, unet: ModelMixin, codec: ModelMixin, scheduler: dict[str, Any], prompt: Tensor, config: MarigoldConfig
    ) -> None:
        super().__init__()
        self.config, self.scheduler = config, scheduler
        self.unet = unet
        self.register_buffer("prompt", prompt)
        self.codec = codec.requires_grad_(False)
        self.factor, self.latent = codecs.factor(codec), codecs.width(codec)

    prompt: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # The codec follows to another device and never to another precision: its own overflows in float16.
        codec = self._modules.pop("codec")
        try:
            super()._apply(fn, recurse)
        finally:
            self._modules["codec"] = codec
        assert codec is not None
        codec._apply(lambda tensor: in_its_precision(fn, tensor))
        return self

    def compile(self, *given: Any, **named: Any) -> None:
        """Compile the network, which does nearly all of the work."""
        self.unet.compile(*given, **named)

    def __repr__(self) -> str:
        return described(self, self.config.size, f"{self.config.how.steps} steps")

    @property
    def quantity(self) -> Quantity:
        """What it predicts."""
        return self.config.quantity

    @property
    def modality(self) -> Modality:
        """How it writes what it predicts as images."""
        return self.config.modality

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.prompt.device

    def denoise(self, seen: Tensor, noisy: Tensor, timestep: Tensor | int, network: nn.Module | None = None) -> Tensor:
        """One pass of the network.

        Args:
            seen: latents that are not denoised, (B, C · n, h, w), the photograph's first.
            noisy: (B, C, h, w).
            timestep: int64 (B,), or one for all.
            network: one like the model's; ``None`` is the model's own.

        Returns:
            Its output (B, C, h, w), whatever of noise and map it predicts.
        """
        given = torch.cat([seen, noisy], dim=1).to(self.prompt.dtype)
        text = self.prompt.expand(len(given), -1, -1)
        passed = self.unet if network is None else network
        output: Tensor = passed(given, timestep, encoder_hidden_states=text, return_dict=False)[0]
        return output

    def sample(self, seen: Tensor, start: Tensor, steps: int) -> Tensor:
        """Clean latents by DDIM, or by the consistency function of a distilled model.

        Args:
            seen: float32 (B, C · n, h, w).
            start: float32 (B, C, h, w), noise or zeros; see :meth:`starts`.
            steps: network passes.
        """
        scheduler = sampler(self.scheduler)
        if isinstance(scheduler, LCMScheduler):
            return sample_few(scheduler, partial(self.denoise, seen), start, steps)
        scheduler.set_timesteps(steps, device=start.device)
        latent = start
        for timestep in scheduler.timesteps:
            output = self.denoise(seen, latent, timestep).float()
            latent = scheduler.step(output, timestep, latent).prev_sample
        return latent

    def starts(self, shape: tuple[int, int], how: How) -> Tensor:
        """What members begin from: float32 (E, n · C, h, w) for a network input of ``shape``, on the CPU.

        A function of seed and shape alone: every photograph, and every frame of a video, begins from the same. A
        distilled model draws noise before each further step too; it follows as n · C channels for each.
        """
        depth = self.latent * len(self.modality.images)
        cells = (how.ensemble, depth, shape[0] // self.factor, shape[1] // self.factor)
        if self.config.begins == "zeros":
            return torch.zeros(cells)
        generator = torch.Generator().manual_seed(how.seed)
        draws = how.steps if few_steps(self.scheduler) else 1
        return torch.cat([torch.randn(cells, generator=generator) for _ in range(draws)], dim=1)

    def members(self, images: Tensor, starts: Tensor, steps: int) -> Tensor:
        """Every member's map of every photograph.

        Args:
            images: float32 (B, 3, h, w) in [-1, 1], padded to the codec's factor.
            starts: float32 (E, n · C, h / f, w / f) for n latents.

        Returns:
            float32 (B, E, h, w) in [0, 1], or the channels of layers, (B, E, C, h, w).
        """
        seen = codecs.encode(self.codec, images)
        pairs = [(photograph, member) for photograph in range(len(images)) for member in range(len(starts))]
        chunk = max(AT_ONCE.get(images.device.type, 4), len(images))
        maps = []
        for first in range(0, len(pairs), chunk):
            photographs, chosen = zip(*pairs[first : first + chunk], strict=True)
            latent = self.sample(seen[list(photographs)], starts[list(chosen)].to(seen), steps)
            maps.append(self.decoded(latent))
        return torch.cat(maps).unflatten(0, (len(images), len(starts)))

    def decoded(self, latent: Tensor) -> Tensor:
        """What latents (B, n · C, h, w) mean: depth (B, H, W) in [0, 1], or the channels of layers (B, C, H, W)."""
        if self.modality.of_depth:
            return from_unit(codecs.decode_map(self.codec, latent))
        return self.modality.from_images(codecs.decode_images(self.codec, latent))

    def merged(self, members: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
        """One prediction of several of one photograph.

        Args:
            members: (E, H, W), or (E, C, H, W) of layers.

        Returns:
            (H, W) and its uncertainty, or (C, H, W) and that of each layer (L, H, W).
        """
        if self.modality.of_depth:
            return merge(members, reduction)
        return merge_layers(self.modality.layers, members, reduction)

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """Height and width the network sees of a photograph, padding included.

        Raises:
            ValueError: nothing would be left of the shorter side.
        """
        return padded(processed((height, width), self._side(input_size)), self.factor)

    def _side(self, input_size: int | None) -> int:
        return self.config.input_size if input_size is None else input_size

    def how(self, **changes: Any) -> How:
        """How it infers, with what is given (and not ``None``) changed.

        Raises:
            ValueError: it does not infer like that.
        """
        how = replace(self.config.how, **{name: value for name, value in changes.items() if value is not None})
        if how.steps > (most := most_steps(self.scheduler)):
            raise ValueError(f"this model was distilled to at most {most} steps, not {how.steps}")
        return how

    def infer_image(self, rgb: NDArray[np.uint8], input_size: int | None = None, **how: Any) -> NDArray[np.float32]:
        """Map of one uint8 image (H, W, 3), float32 (H, W) in [0, 1], at its resolution; see :meth:`infer_maps`.

        Args:
            input_size: longest side that the network sees, 0 for the image's own; ``None`` is the model's.
            how: ``steps``, ``ensemble``, ``seed``, ``reduction`` of :class:`How`.
        """
        return self.infer_maps([rgb], input_size, **how)[0].values

    def infer_images(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None, **how: Any
    ) -> list[NDArray[np.float32]]:
        """The same for several images."""
        return [each.values for each in self.infer_maps(images, input_size, **how)]

    def infer_maps(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None, **how: Any
    ) -> list[Maps[NDArray[np.float32]]]:
        """The same with the quantity, and with the uncertainty where members are merged.

        Of layers these are arrays (3, H, W) or (H, W), further ones beside the first: unit normals in camera axes, all
        else linear in [0, 1], shading and residual in one unit.
        """
        if not self.config.adapted:
            raise ValueError("this model denoises photographs and predicts nothing yet; train it first")
        chosen, side = self.how(**how), self._side(input_size)
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, rgb in enumerate(images):
            groups[(rgb.shape[0], rgb.shape[1])].append(index)
        found: dict[int, Maps[NDArray[np.float32]]] = {}
        for shape, indices in groups.items():
            seen = padded(processed(shape, side), self.factor)
            every = self._from([images[index] for index in indices], self.starts(seen, chosen), chosen, side)
            found |= dict(zip(indices, every, strict=True))
        return [found[index] for index in range(len(images))]

    def infer_part(
        self, rgb: NDArray[np.uint8], place: tuple[int, int], whole: tuple[int, int], input_size: int | None = None
    ) -> Maps[NDArray[np.float32]]:
        """Maps of a part of a photograph, begun from its part of the photograph's noise.

        Args:
            rgb: the part, uint8 (h, w, 3).
            place: its first row and column.
            whole: (H, W) of the photograph.
            input_size: longest side of the part as the network sees it.
        """
        how, side = self.how(), self._side(input_size)
        part = (rgb.shape[0], rgb.shape[1])
        seen = processed(part, side)
        scales = [inside / length for inside, length in zip(seen, part, strict=True)]
        # One cell more than the photograph fills, since both its end and the part's place are rounded.
        tall, wide = (math.ceil(length * scale) + 2 * self.factor for length, scale in zip(whole, scales, strict=True))
        noise = self.starts((tall, wide), how)
        top, left = (round(at * scale / self.factor) for at, scale in zip(place, scales, strict=True))
        rows, columns = (length // self.factor for length in padded(seen, self.factor))
        return self._from([rgb], noise[..., top : top + rows, left : left + columns], how, side)[0]

    def _from(
        self, images: Sequence[NDArray[np.uint8]], starts: Tensor, how: How, side: int
    ) -> list[Maps[NDArray[np.float32]]]:
        """Maps of photographs of one shape, whose members begin from ``starts``."""
        shape = (images[0].shape[0], images[0].shape[1])
        with torch.inference_mode():
            batch = torch.cat([to_network(rgb, side, self.factor) for rgb in images])
            members = self.members(batch.to(self.device), starts, how.steps)
            inside = processed(shape, side)
            members = members[..., : inside[0], : inside[1]]
            return [self._merged(each, shape, how) for each in members]

    def _merged(self, members: Tensor, shape: tuple[int, int], how: How) -> Maps[NDArray[np.float32]]:
        found, spread = self.merged(members, how.reduction)
        several = len(members) > 1
        if self.modality.of_depth:
            values, uncertainty = (enlarged(each, shape).cpu().numpy() for each in (found, spread))
            return Maps(self.quantity, values, uncertainty if several else None)
        wide = F.interpolate(spread[None], shape, mode="bilinear")[0].cpu() if several else None
        return self.modality.maps(self.modality.resized(found, shape).cpu(), wide).numpy()


def in_its_precision(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """``fn`` of a tensor, or only the move to another device where it would change the precision."""
    changed = fn(tensor)
    return changed if changed.dtype == tensor.dtype else tensor.to(changed.device)


def about(model: Marigold, steps: int, ensemble: int) -> dict[str, object]:
    """Size, input size in pixels, parameters, steps and merged predictions of ``model``, for the score file."""
    return {
        "size": model.config.size,
        "input_size": model.config.input_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "ensemble": ensemble,
    }
