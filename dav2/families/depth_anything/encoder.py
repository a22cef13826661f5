"""What the encoders of Depth Anything have in common: timm's blocks, and four tapped outputs through one final norm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dav2.families.depth_anything.sizes import Size
from dav2.families.depth_anything.timm_parts import Attention, Block, Mlp, PatchEmbed, SwiGLUPacked

SHORT = 512
"""Most tokens for which training on a processor forms the attention matrix."""


class SelfAttention(Attention):
    """timm's attention (same parameters) that picks its kernel by what it is needed for.

    PyTorch's fused kernel for processors never forms the attention matrix, but its backward pass takes several times
    as long as three plain matrix products while that matrix is small, as it is for training crops. Where the fused
    kernel does run it gains more from contiguous heads than copying them costs.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.attend(self.by_head(self.qkv(x)))

    def by_head(self, qkv: Tensor) -> Tensor:
        """(B, N, 3 · dim) to (3, B, heads, N, width)."""
        batch, tokens, _ = qkv.shape
        return qkv.reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)

    def attend(self, qkv: Tensor) -> Tensor:
        """Attention and its last layer, from what :meth:`by_head` gives: (B, N, dim)."""
        _, batch, heads, tokens, width = qkv.shape
        if qkv.device.type == "cpu" and torch.is_grad_enabled() and tokens <= SHORT:
            q, k, v = qkv.unbind(0)
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            # A GPU's kernels take the heads where they lie; copying them was a tenth of the whole prediction there.
            q, k, v = (qkv if qkv.is_cuda else qkv.contiguous()).unbind(0)
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, heads * width))

    def biases(self) -> Tensor:
        """Biases of query, key and value, one after another: (3 · dim,)."""
        return self.qkv.bias


class EncoderBlock(Block):
    """timm's block (same parameters) with LayerScale and the residual sum in one pass over memory."""

    def forward(self, x: Tensor, *position: Tensor) -> Tensor:
        """Tokens (B, N, dim) to the same; ``position`` is what the attention takes besides."""
        x = torch.addcmul(x, self.attn(self.norm1(x), *position).to(x.dtype), self.ls1.gamma)
        return torch.addcmul(x, self.mlp(self.norm2(x)).to(x.dtype), self.ls2.gamma)


def draw(tokens: nn.Parameter, deviation: float) -> None:
    """Fill with normal noise, but not where there is nothing to fill.

    On the meta device, where a model is made that takes its weights from a file, PyTorch's own drawing imports its
    compiler: that took longer than all else that a prediction needs to begin.
    """
    if not tokens.is_meta:
        nn.init.normal_(tokens, std=deviation)


class Encoder(nn.Module, ABC):
    """A vision transformer with four tapped blocks; what a kind adds to it is :meth:`embed` and :meth:`position`.

    Parameter names are those of timm's vision transformers. ``mask_token`` belongs to published weights and takes no
    part in the computation.

    Attributes:
        patch: side of an image patch in pixels.
        prefix: tokens before those of the patches.
    """

    prefix = 1
    blocks: nn.ModuleList
    norm: nn.Module

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.taps = size.taps
        self.dim = size.dim
        self.patch = size.patch
        self.activation_checkpointing = False
        self._compiled: tuple[Callable[..., Tensor], ...] = ()
        self.patch_embed = PatchEmbed(None, size.patch, embed_dim=size.dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, size.dim), requires_grad=False)

    def _draw_layers(self) -> None:
        """Class token, and truncated normal of deviation 0.02 for linear layers, zero biases: as DINOv2 starts."""
        draw(self.cls_token, 1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def compile_blocks(self, dynamic: bool, **options: Any) -> None:
        """Compile the blocks for training; they are of one kind, so that one graph serves all of them.

        Args:
            options: further ones of ``torch.compile``.
        """
        self._compiled = tuple(torch.compile(block, dynamic=dynamic, **options) for block in self.blocks)

    @abstractmethod
    def embed(self, image: Tensor) -> Tensor:
        """Tokens that the first block takes of ``image`` (B, 3, H, W): (B, prefix + patches, dim)."""

    def position(self, rows: int, columns: int) -> tuple[Tensor, ...]:
        """What every block takes beside the tokens of a patch grid of ``rows`` × ``columns``."""
        return ()

    def patches(self, image: Tensor) -> Tensor:
        """Patch tokens before any position: (B, rows · columns, dim)."""
        batch, channels, height, width = image.shape
        side = self.patch
        rows, columns = height // side, width // side
        # The convolution of the patches, written as the matrix product it is: that needs no change of layout after it.
        pixels = image.reshape(batch, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        pixels = pixels.reshape(batch, rows * columns, channels * side * side)
        layer = self.patch_embed.proj
        return F.linear(pixels, layer.weight.flatten(1), layer.bias)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normed patch tokens of the four tapped blocks.

        Args:
            image: (B, 3, H, W), ImageNet-normalised, H and W multiples of ``patch``.

        Returns:
            Four tensors (B, patches, dim), shallowest first; the tokens before the patches are left out.
        """
        x = self.embed(image)
        position = self.position(image.shape[-2] // self.patch, image.shape[-1] // self.patch)
        tapped = []
        blocks: Iterable[Callable[..., Tensor]] = self.blocks
        if self._compiled and self.training:
            blocks = self._compiled
        for index, block in enumerate(blocks):
            recompute = self.activation_checkpointing and self.training
            x = checkpoint(block, x, *position, use_reentrant=False) if recompute else block(x, *position)
            if index in self.taps:
                tapped.append(self.norm(x)[:, self.prefix :])
        return tapped


def make_blocks(size: Size, attention: type[SelfAttention] = SelfAttention, **options: object) -> nn.ModuleList:
    """The blocks of an encoder; ``options`` are those of timm's block."""
    hidden = 2 * size.ffn if size.swiglu else size.ffn
    mlp: type[nn.Module] = SwiGLUPacked if size.swiglu else Mlp
    return nn.ModuleList(
        EncoderBlock(
            size.dim,
            size.heads,
            mlp_ratio=(hidden + 0.5) / size.dim,
            init_values=1.0,
            act_layer=nn.SiLU if size.swiglu else nn.GELU,
            mlp_layer=mlp,
            attn_layer=attention,
            **options,
        )
        for _ in range(size.depth)
    )
