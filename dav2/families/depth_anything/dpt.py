"""The DPT decoder (arXiv 2103.13413) as Depth Anything sizes it: four token maps in, one map at input resolution out.

Token maps stay in channels-last order throughout: the reshape from tokens then costs nothing, and it is the layout the
convolution kernels want. The 1 × 1 convolution that ends a fusion block runs before the block's bilinear enlargement
and not after it. The two commute, because bilinear weights sum to one, and the convolution then sees a quarter of the
pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dav2.families.depth_anything.bilinear import bilinear
from dav2.families.depth_anything.sizes import Size
from dav2.tf32 import full_precision

HEAD_CHANNELS = 32
"""Channels of the last hidden map, in every size."""
SLAB = 8192
"""Pixels of the last hidden map that are converted to float32 at a time."""


class ResidualUnit(nn.Module):
    """Pre-activation residual unit: ReLU, 3 × 3, ReLU, 3 × 3, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # A convolution does not keep its output for the backward pass, so what follows it may overwrite it.
        hidden = F.relu(self.conv1(F.relu(x)), inplace=True)
        return self.conv2(hidden).add_(x)


class FusionBlock(nn.Module):
    """Adds a lateral map to the coarser result, refines it and enlarges it to ``size``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lateral_unit = ResidualUnit(channels)
        self.unit = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, lateral: Tensor | None, size: tuple[int, int]) -> Tensor:
        if lateral is not None:
            x = self.lateral_unit(lateral).add_(x)
        return enlarge(self.out(self.unit(x)), size)


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resizing with aligned corners, as everywhere in this decoder.

    Args:
        x: (B, C, h, w).
        size: rows and columns of the result.
    """
    if x.is_cuda and x.requires_grad and torch.is_grad_enabled():
        return bilinear(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class DPT(nn.Module):
    """Decoder from four token maps to one map with its values at every input pixel, before the output activation.

    The coarsest fusion block has no lateral input; its ``lateral_unit`` is part of the published weights, takes no
    part in the computation and is frozen so that data-parallel training does not wait for its gradient.

    Args:
        size: how wide everything is.
        values: of each pixel.
    """

    def __init__(self, size: Size, values: int = 1) -> None:
        super().__init__()
        channels, features = size.out_channels, size.features
        self.patch = size.patch
        self.project = nn.ModuleList(nn.Conv2d(size.dim, c, 1) for c in channels)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels)
        self.fusion = nn.ModuleList(FusionBlock(features) for _ in channels)
        self.fusion[3].lateral_unit.requires_grad_(False)
        self.head1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.head2 = nn.Conv2d(features // 2, HEAD_CHANNELS, 3, padding=1)
        self.head3 = nn.Conv2d(HEAD_CHANNELS, values, 1)

    def forward(self, tapped: list[Tensor], rows: int, columns: int) -> Tensor:
        """Decode token maps of a patch grid of ``rows`` × ``columns``.

        Args:
            tapped: four tensors (B, rows · columns, dim), shallowest first.

        Returns:
            float32 (B, patch · rows, patch · columns), or (B, values, …) where a pixel has several; no activation
            applied.
        """
        maps = []
        for index, tokens in enumerate(tapped):
            x = tokens.reshape(tokens.shape[0], rows, columns, tokens.shape[2]).permute(0, 3, 1, 2)
            maps.append(self.lateral[index](self.resize[index](self.project[index](x))))
        sizes = [(8 * rows, 8 * columns), *((m.shape[2], m.shape[3]) for m in maps[:3])]
        x = self.fusion[3](maps[3], None, sizes[3])
        for index in (2, 1, 0):
            x = self.fusion[index](x, maps[index], sizes[index])
        x = enlarge(self.head1(x), (self.patch * rows, self.patch * columns))
        return last_layer(F.relu(self.head2(x), inplace=True), self.head3)


def last_layer(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """The final 1 × 1 convolution, in float32 whatever the precision of the rest: (B, H, W), or (B, values, H, W).

    In bfloat16 a prediction has 256 values per octave: visible steps in a map, and ties between points. The features
    are converted a slab at a time, because a float32 copy of the whole map would not fit any cache.
    """
    with full_precision(x.device):
        assert layer.bias is not None
        weight, bias = layer.weight.float().flatten(1), layer.bias.float()
        alone = len(weight) == 1
        whole = x.dtype == torch.float32 or x.device.type != "cpu"
        if whole or torch.is_grad_enabled() or torch.compiler.is_compiling():
            found = F.conv2d(x.float(), weight[:, :, None, None], bias)
            return found.squeeze(1) if alone else found
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        # One value by a product with a vector, which is another kernel than that with a matrix of one column.
        columns = weight[0] if alone else weight.t()
        made = torch.cat([slab.float() @ columns for slab in pixels.split(SLAB)]) + bias
        placed = made.reshape(x.shape[0], *x.shape[2:], -1)
        return placed.squeeze(-1) if alone else placed.permute(0, 3, 1, 2)
