"""Turning a denoiser of photographs into one of maps beside a photograph (arXiv 2312.02145, section 3.2).

The first layer's kernels are repeated along the input channels and divided by how often, its bias kept: where every
group of channels carries a latent of unit variance, activations keep their size. The last layer is repeated whole for
several targets. The configuration follows, so that what is saved has the shape it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CONDITIONS = 2
"""Conditions of a network that refines a map: the photograph and the map."""


def widen_input(unet: UNet2DConditionModel, times: int) -> None:
    """Let a ``UNet2DConditionModel`` take ``times`` as many channels, in place."""
    old = unet.conv_in
    new = _convolution(old, old.in_channels * times, old.out_channels)
    with torch.no_grad():
        new.weight.copy_(old.weight.repeat(1, times, 1, 1) / times)
        _bias(new).copy_(_bias(old))
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def widen_output(unet: UNet2DConditionModel, times: int) -> None:
    """Let a ``UNet2DConditionModel`` give ``times`` as many channels, in place."""
    old = unet.conv_out
    new = _convolution(old, old.in_channels, old.out_channels * times)
    with torch.no_grad():
        new.weight.copy_(old.weight.repeat(times, 1, 1, 1))
        _bias(new).copy_(_bias(old).repeat(times))
    unet.conv_out = new
    unet.register_to_config(out_channels=new.out_channels)


def add_condition(unet: UNet2DConditionModel, latent: int) -> None:
    """Let a network that sees a photograph see one latent more, after the photograph's; it begins by ignoring it."""
    old = unet.conv_in
    new = _convolution(old, old.in_channels + latent, old.out_channels)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latent].copy_(old.weight[:, :latent])
        new.weight[:, 2 * latent :].copy_(old.weight[:, latent:])
        _bias(new).copy_(_bias(old))
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def silence(unet: UNet2DConditionModel) -> None:
    """Let a network say nothing at first, in place: its last layer becomes zero, and learns before all others do."""
    with torch.no_grad():
        unet.conv_out.weight.zero_()
        _bias(unet.conv_out).zero_()


def fit(unet: UNet2DConditionModel, latent: int, conditions: int, targets: int = 1) -> str:
    """Make a denoiser take ``conditions`` latents beside those of its targets; one that does is left alone.

    Args:
        unet: ``UNet2DConditionModel``.
        latent: channels of one latent.
        conditions: latents that it sees and does not denoise, the photograph's among them.
        targets: latents that it denoises.

    Returns:
        What was done, in a sentence; empty where nothing was.

    Raises:
        ValueError: its channels are neither those of a denoiser of photographs nor those wanted.
    """
    wanted = (latent * (conditions + targets), latent * targets)
    found = (unet.config["in_channels"], unet.config["out_channels"])
    if found == wanted:
        return ""
    seeing = found[0] == latent * (1 + targets) and conditions == CONDITIONS
    if found[1] not in (latent, wanted[1]) or (wanted[0] % found[0] and not seeing):
        raise ValueError(
            f"the network takes {found[0]} channels and gives {found[1]}; with latents of {latent} channels it must "
            f"take {latent} or {wanted[0]} and give {latent} or {wanted[1]}"
        )
    if seeing:
        add_condition(unet, latent)
    elif found[0] != wanted[0]:
        widen_input(unet, wanted[0] // found[0])
    if found[1] != wanted[1]:
        widen_output(unet, wanted[1] // found[1])
    return f"its first layer takes {wanted[0]} channels instead of {found[0]}, its last gives {wanted[1]}"


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _convolution(like: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    new = nn.Conv2d(inputs, outputs, like.kernel_size, like.stride, like.padding)  # type: ignore[arg-type]
    return new.to(like.weight.device, like.weight.dtype)
