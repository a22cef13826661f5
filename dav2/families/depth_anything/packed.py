"""Inference on a processor with the weights in the layout that its kernels like best.

The network of :mod:`dav2.families.depth_anything.model` once more, with nothing done at a call that can be done before
it: weights are reordered, LayerScale is part of the weights before it, residual sums and ReLU happen while a product is
written. In bfloat16 oneDNN multiplies everything and the sequence of tokens has a length that suits the matrix unit; in
float32 oneDNN convolves, MKL multiplies matrices. The results are those of the plain network up to the rounding of
the precision. Training, export, and all other devices and precisions run the plain network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dav2.families.depth_anything.dpt import DPT, FusionBlock, ResidualUnit, enlarge, last_layer
from dav2.families.depth_anything.encoder import Encoder, EncoderBlock
from dav2.families.depth_anything.packed_blocks import FloatBlock, PackedBlock
from dav2.families.depth_anything.packed_layers import PackedConv, PackedTransposed, packed_linear

LEAST_PATCHES = 1024
"""Patches of an image from which on the packed form serves float32; below, it was not faster everywhere."""


class PackedEncoder:
    """See :class:`dav2.families.depth_anything.encoder.Encoder`."""

    def __init__(self, encoder: Encoder) -> None:
        self.embed, self.position, self.norm = encoder.embed, encoder.position, encoder.norm
        self.taps, self.prefix, self.patch = encoder.taps, encoder.prefix, encoder.patch
        self.form = FloatBlock if encoder.cls_token.dtype == torch.float32 else PackedBlock
        self.blocks = [self.form(block) for block in encoder.blocks if isinstance(block, EncoderBlock)]

    def __call__(self, image: Tensor) -> list[Tensor]:
        x = self.embed(image)
        count = x.shape[1]
        more = (0, 0, 0, -count % self.form.step)
        x = F.pad(x, more)
        rows, columns = (side // self.patch for side in image.shape[-2:])
        position = [F.pad(each, more) for each in self.position(rows, columns)]
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x, count, *position)
            if index in self.taps:
                tapped.append(self.norm(x[:, self.prefix : count]))
        return tapped


class PackedUnit:
    """See :class:`dav2.families.depth_anything.dpt.ResidualUnit`."""

    def __init__(self, unit: ResidualUnit, side: int) -> None:
        self.conv1, self.conv2 = PackedConv(unit.conv1, side, side), PackedConv(unit.conv2, side, side)

    def __call__(self, x: Tensor) -> Tensor:
        """The unit's output, written over ``x``."""
        return self.conv2.plus(self.conv1(F.relu(x), relu=True), x)


class PackedFusion:
    """See :class:`dav2.families.depth_anything.dpt.FusionBlock`."""

    def __init__(self, block: FusionBlock, side: int) -> None:
        self.lateral_unit, self.unit = PackedUnit(block.lateral_unit, side), PackedUnit(block.unit, side)
        self.out = PackedConv(block.out, side, side)

    def __call__(self, x: Tensor, lateral: Tensor | None, size: tuple[int, int]) -> Tensor:
        if lateral is not None:
            x = self.lateral_unit(lateral).add_(x)
        return enlarge(self.out(self.unit(x)), size)


class PackedDecoder:
    """See :class:`dav2.families.depth_anything.dpt.DPT`; ``grid`` is the number of patches along a side."""

    def __init__(self, decoder: DPT, grid: int) -> None:
        sides = (4 * grid, 2 * grid, grid, (grid + 1) // 2)
        self.project = [_pointwise(layer) for layer in _convs(decoder.project)]
        self.resize = [_resizing(layer, grid) for layer in decoder.resize]
        self.lateral = [PackedConv(c, side, side) for c, side in zip(_convs(decoder.lateral), sides, strict=True)]
        self.fusion = [
            PackedFusion(block, side)
            for block, side in zip(decoder.fusion, sides, strict=True)
            if isinstance(block, FusionBlock)
        ]
        self.head1 = PackedConv(decoder.head1, 8 * grid, 8 * grid)
        self.head2 = PackedConv(decoder.head2, decoder.patch * grid, decoder.patch * grid)
        self.patch = decoder.patch
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
        x = enlarge(self.head1(x), (self.patch * rows, self.patch * columns))
        return last_layer(self.head2(x, relu=True), self.head3)


class PackedNetwork:
    """Encoder and decoder as they are now; :meth:`current` says whether that is still so."""

    def __init__(self, encoder: Encoder, decoder: DPT, input_size: int) -> None:
        self.parameters = [*encoder.parameters(), *decoder.parameters()]
        self.counted = [p for p in self.parameters if not p.is_inference()]
        self.state = self._state()
        self.encoder = PackedEncoder(encoder)
        self.decoder = PackedDecoder(decoder, input_size // encoder.patch)

    def _state(self) -> tuple[int, int]:
        """Where the parameters lie and how often they were written; tensors made in inference mode do not count."""
        return sum(p.data_ptr() for p in self.parameters), sum(p._version for p in self.counted)

    def current(self) -> bool:
        """Whether no parameter has been replaced or written since."""
        return self._state() == self.state

    def __call__(self, image: Tensor) -> Tensor:
        """float32 (B, H, W) before the output activation."""
        return self.decoder(self.encoder(image), *(side // self.encoder.patch for side in image.shape[2:]))


_PACKED: WeakKeyDictionary[nn.Module, PackedNetwork] = WeakKeyDictionary()


def packed_network(owner: nn.Module, encoder: Encoder, decoder: DPT, input_size: int) -> PackedNetwork:
    """The packed form of ``owner``'s network, made when it is first asked for or when a weight has changed since."""
    found = _PACKED.get(owner)
    if found is None or not found.current():
        found = _PACKED[owner] = PackedNetwork(encoder, decoder, input_size)
    return found


def serves(module: nn.Module, image: Tensor, patch: int) -> bool:
    """Whether a forward pass can take the packed form.

    That is inference on a processor with oneDNN: in bfloat16 where oneDNN knows it, in float32 with AVX2 or AVX-512
    and for images of at least :data:`LEAST_PATCHES`.
    """
    if image.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if module.training or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    if image.dtype == torch.bfloat16:
        supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        large = image.shape[-2] * image.shape[-1] >= LEAST_PATCHES * patch**2
        known = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        supported = image.dtype == torch.float32 and known and large
    return supported and next(module.parameters()).dtype == image.dtype


def _resizing(layer: nn.Module, grid: int) -> Callable[[Tensor], Tensor]:
    if isinstance(layer, nn.ConvTranspose2d):
        return PackedTransposed(layer, grid, grid)
    return PackedConv(layer, grid, grid) if isinstance(layer, nn.Conv2d) else layer


def _convs(layers: Iterable[nn.Module]) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _pointwise(layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    assert layer.bias is not None
    return packed_linear(layer.weight.flatten(1), layer.bias)
