"""Inference in bfloat16 on a processor, with the weights in oneDNN's own layout.

The network of :mod:`dav2.models.depth_anything` once more, as PyTorch's kernels for processors like it best: weights
are reordered once and not at every call, LayerScale is part of the weights before it, residual sums and ReLU happen
while a product is written, and the sequence of tokens has a length that suits the matrix unit. The results are those of
the plain network up to the rounding of bfloat16, of which there is less here. Training, export and all other devices
and precisions run the plain network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from torch import Tensor, nn

from dav2.models.dinov2 import DinoV2, EncoderBlock
from dav2.models.dpt import DPT, FusionBlock, ResidualUnit, enlarge, last_layer
from dav2.models.sizes import PATCH

STEP = 8
"""Token counts are padded to a multiple of this: with 1370 keys attention takes a quarter longer than with 1376."""
LARGEST_SHARE = 0.999
"""Up to this share of the softmax the padded keys are divided out; float32 then still holds four digits of the rest."""
_ROWS = 1370
"""Tokens of an image at the native input size, for which the layout of the weights is chosen; it serves any number."""


class PackedLinear:
    """A linear layer with its weight reordered; ``scale`` multiplies its outputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> None:
        if scale is not None:
            weight = (weight.float() * scale.float()[:, None]).to(weight.dtype)
            bias = None if bias is None else (bias.float() * scale.float()).to(bias.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, gelu: bool = False) -> Tensor:
        """The layer, followed by the exact GELU if asked for."""
        after, variant = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, after, [], variant)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer's output plus ``other``."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")


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
        """The convolution's output plus ``other``."""
        add = ("add", 1.0, None, (), "")
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, self.weight, self.bias, *self.geometry, *add)


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


class PackedBlock:
    """One block of the encoder, on a padded sequence."""

    def __init__(self, block: EncoderBlock) -> None:
        attention = block.attn
        assert isinstance(attention, Attention)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.heads, self.width = attention.num_heads, attention.head_dim
        self.qkv = PackedLinear(attention.qkv.weight, attention.qkv.bias)
        self.proj = PackedLinear(attention.proj.weight, attention.proj.bias, block.ls1.gamma)
        self.gated = isinstance(block.mlp.act, nn.SiLU)
        self.fc1 = PackedLinear(block.mlp.fc1.weight, block.mlp.fc1.bias)
        self.fc2 = PackedLinear(block.mlp.fc2.weight, block.mlp.fc2.bias, block.ls2.gamma)

    def __call__(self, x: Tensor, count: int) -> Tensor:
        """Tokens (B, N, dim), of which the first ``count`` are real, to the same."""
        x = self.proj.plus(self.attend(self.qkv(self.norm1(x)), count), x)
        if not self.gated:
            return self.fc2.plus(self.fc1(self.norm2(x), gelu=True), x)
        gate, value = self.fc1(self.norm2(x)).chunk(2, dim=-1)
        return self.fc2.plus(F.silu(gate).mul_(value), x)

    def attend(self, qkv: Tensor, count: int) -> Tensor:
        """Attention of every token to the first ``count``: (B, N, 3 · dim) to (B, N, dim).

        Padded keys and values are zero. A padded key then adds exp(0) to the denominator of the softmax and nothing to
        the sum, and the kernel returns the logarithm of the denominator, so the share is divided out afterwards. Where
        it is nearly the whole denominator (all real scores far below zero), the keys are cut off instead.
        """
        batch, tokens, _ = qkv.shape
        dim = self.heads * self.width
        padded = tokens - count
        if padded:
            qkv[:, count:, dim:] = 0
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        if padded:
            out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
            share = (math.log(padded) - log_sum).exp_()
            if share.amax() < LARGEST_SHARE:
                factor = share.neg_().add_(1).reciprocal_().to(out.dtype).transpose(1, 2)[..., None]
                return torch.mul(out.transpose(1, 2), factor).reshape(batch, tokens, dim)
        out = F.scaled_dot_product_attention(q, k[:, :, :count], v[:, :, :count])
        return out.transpose(1, 2).reshape(batch, tokens, dim)


class PackedEncoder:
    """See :class:`dav2.models.dinov2.DinoV2`."""

    def __init__(self, encoder: DinoV2) -> None:
        self.embed, self.norm, self.taps = encoder.embed, encoder.norm, encoder.taps
        self.blocks = [PackedBlock(block) for block in encoder.blocks if isinstance(block, EncoderBlock)]

    def __call__(self, image: Tensor) -> list[Tensor]:
        x = self.embed(image)
        count = x.shape[1]
        x = F.pad(x, (0, 0, 0, -count % STEP))
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x, count)
            if index in self.taps:
                tapped.append(self.norm(x[:, 1:count]))
        return tapped


class PackedUnit:
    """See :class:`dav2.models.dpt.ResidualUnit`."""

    def __init__(self, unit: ResidualUnit, side: int) -> None:
        self.conv1, self.conv2 = PackedConv(unit.conv1, side, side), PackedConv(unit.conv2, side, side)

    def __call__(self, x: Tensor) -> Tensor:
        return self.conv2.plus(self.conv1(F.relu(x), relu=True), x)


class PackedFusion:
    """See :class:`dav2.models.dpt.FusionBlock`."""

    def __init__(self, block: FusionBlock, side: int) -> None:
        self.lateral_unit, self.unit = PackedUnit(block.lateral_unit, side), PackedUnit(block.unit, side)
        self.out = PackedConv(block.out, side, side)

    def __call__(self, x: Tensor, lateral: Tensor | None, size: tuple[int, int]) -> Tensor:
        if lateral is not None:
            x = self.lateral_unit(lateral).add_(x)
        return enlarge(self.out(self.unit(x)), size)


class PackedDecoder:
    """See :class:`dav2.models.dpt.DPT`; ``grid`` is the number of patches along a side."""

    def __init__(self, decoder: DPT, grid: int) -> None:
        sides = (4 * grid, 2 * grid, grid, (grid + 1) // 2)
        self.project = [PackedLinear(layer.weight.flatten(1), layer.bias) for layer in _convs(decoder.project)]
        self.resize = [_resizing(layer, grid) for layer in decoder.resize]
        self.lateral = [PackedConv(c, side, side) for c, side in zip(_convs(decoder.lateral), sides, strict=True)]
        self.fusion = [
            PackedFusion(block, side)
            for block, side in zip(decoder.fusion, sides, strict=True)
            if isinstance(block, FusionBlock)
        ]
        self.head1 = PackedConv(decoder.head1, 8 * grid, 8 * grid)
        self.head2 = PackedConv(decoder.head2, PATCH * grid, PATCH * grid)
        self.head3 = decoder.head3

    def __call__(self, tapped: list[Tensor], rows: int, columns: int) -> Tensor:
        maps = []
        for tokens, project, resize, lateral in zip(tapped, self.project, self.resize, self.lateral, strict=True):
            x = project(tokens).reshape(tokens.shape[0], rows, columns, -1).permute(0, 3, 1, 2)
            maps.append(lateral(resize(x)))
        sizes = [(8 * rows, 8 * columns), *((m.shape[2], m.shape[3]) for m in maps[:3])]
        x = self.fusion[3](maps[3], None, sizes[3])
        for index in (2, 1, 0):
            x = self.fusion[index](x, maps[index], sizes[index])
        x = enlarge(self.head1(x), (PATCH * rows, PATCH * columns))
        return last_layer(self.head2(x, relu=True), self.head3)


class PackedNetwork:
    """Encoder and decoder as they are now; :meth:`current` says whether that is still so."""

    def __init__(self, encoder: DinoV2, decoder: DPT, input_size: int) -> None:
        self.parameters = [*encoder.parameters(), *decoder.parameters()]
        self.counted = [p for p in self.parameters if not p.is_inference()]
        self.state = self._state()
        self.encoder = PackedEncoder(encoder)
        self.decoder = PackedDecoder(decoder, input_size // PATCH)

    def _state(self) -> tuple[int, int]:
        """Where the parameters lie and how often they were written; tensors made in inference mode do not count."""
        return sum(p.data_ptr() for p in self.parameters), sum(p._version for p in self.counted)

    def current(self) -> bool:
        """Whether no parameter has been replaced or written since."""
        return self._state() == self.state

    def __call__(self, image: Tensor) -> Tensor:
        """float32 (B, H, W) before the output activation."""
        return self.decoder(self.encoder(image), image.shape[2] // PATCH, image.shape[3] // PATCH)


_PACKED: WeakKeyDictionary[nn.Module, PackedNetwork] = WeakKeyDictionary()


def packed_network(owner: nn.Module, encoder: DinoV2, decoder: DPT, input_size: int) -> PackedNetwork:
    """The packed form of ``owner``'s network, made when it is first asked for or when a weight has changed since."""
    found = _PACKED.get(owner)
    if found is None or not found.current():
        found = _PACKED[owner] = PackedNetwork(encoder, decoder, input_size)
    return found


def serves(module: nn.Module, image: Tensor) -> bool:
    """Whether a forward pass can take the packed form: inference in bfloat16 on a processor that has oneDNN."""
    if image.device.type != "cpu" or image.dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    if module.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported and next(module.parameters()).dtype == torch.bfloat16


def _resizing(layer: nn.Module, grid: int) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.ConvTranspose2d):
        return PackedTransposed(layer, grid, grid)
    return PackedConv(layer, grid, grid) if isinstance(layer, nn.Conv2d) else layer


def _convs(layers: Iterable[nn.Module]) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]
