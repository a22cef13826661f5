"""Layers with their weights in the layout that a processor's kernels like best, and what follows them fused."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 1370
"""Tokens of an image at the native input size, for which the layout of the weights is chosen; it serves any number."""


class PackedLinear:
    """A linear layer in bfloat16 with its weight reordered for oneDNN; ``scale`` multiplies its outputs."""

    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor | None = None) -> None:
        weight, bias = _scaled(weight, bias, scale)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self.bias = bias.detach()

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """The layer, followed by the exact GELU if asked for."""
        after, variant = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, after, [], variant)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output plus ``other``, which it may overwrite."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")


class FloatLinear:
    """A linear layer in float32; ``scale`` multiplies its outputs.

    MKL multiplies float32 faster than oneDNN does, with AVX2 by a tenth. What is left to save is passes over memory:
    the product is added to the residual stream where that lies, and GELU overwrites its input.
    """

    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor | None = None) -> None:
        weight, bias = _scaled(weight, bias, scale)
        self.weight, self.bias = weight.detach(), bias.detach()

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """The layer, followed by the exact GELU if asked for."""
        x = F.linear(x, self.weight, self.bias)
        return torch.ops.aten.gelu_(x) if gelu else x

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output plus ``other``, which it overwrites."""
        other.add_(self.bias).flatten(0, -2).addmm_(x.flatten(0, -2), self.weight.t())
        return other


def packed_linear(weight: Tensor, bias: Tensor, scale: Tensor | None = None) -> PackedLinear | FloatLinear:
    """The form of a linear layer that suits the precision of its weight."""
    return (FloatLinear if weight.dtype == torch.float32 else PackedLinear)(weight, bias, scale)


class PackedConv:
    """A convolution with its weight reordered for maps of about ``height`` × ``width``."""

    def __init__(self, layer: nn.Conv2d, height: int, width: int) -> None:
        self.geometry = (list(layer.padding), list(layer.stride), list(layer.dilation), layer.groups)
        shape = [1, layer.in_channels, height, width]
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight.detach(), *self.geometry, shape)
        self.bias = None if layer.bias is None else layer.bias.detach()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        """The convolution, followed by ReLU if asked for."""
        after = "relu" if relu else "none"
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.geometry, after, [], "")

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The convolution's output plus ``other``, which it overwrites."""
        add = ("add", 1.0, None, (), "")
        return torch.ops.mkldnn._convolution_pointwise_.binary(other, x, self.weight, self.bias, *self.geometry, *add)


class PackedTransposed:
    """As :class:`PackedConv` for a transposed convolution."""

    def __init__(self, layer: nn.ConvTranspose2d, height: int, width: int) -> None:
        padding, stride, dilation = list(layer.padding), list(layer.stride), list(layer.dilation)
        self.geometry = (padding, list(layer.output_padding), stride, dilation, layer.groups)
        shape = [1, layer.in_channels, height, width]
        self.weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(
            layer.weight.detach(), *self.geometry, shape
        )
        self.bias = None if layer.bias is None else layer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._convolution_transpose_pointwise(
            x, self.weight, self.bias, *self.geometry, "none", [], ""
        )


def _scaled(weight: Tensor, bias: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """A layer whose outputs are those of the given one times ``scale``, folded in with the precision of float32."""
    if scale is None:
        return weight, bias
    scale = scale.float()
    return (weight.float() * scale[:, None]).to(weight.dtype), (bias.float() * scale).to(bias.dtype)
