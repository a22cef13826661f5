"""The DINOv2 vision transformer (arXiv 2304.07193) on timm's blocks, with four tapped outputs.

Two things differ from timm's own DINOv2 models: the positional embedding is resized by the rule of the original code
(timm and ``transformers`` use others, which shift every token a little), and all four tapped outputs pass through the
one final norm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp, SwiGLUPacked
from timm.layers.norm import LayerNorm
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dav2.families.depth_anything.sizes import GRID, PATCH, Size
from dav2.tf32 import full_precision

OFFSET = 0.1
"""Added to the patch grid before the scale factor is formed; the original code's guard against a floor error."""
SHORT = 512
"""Most tokens for which training on a processor forms the attention matrix."""
_CUBIC = -0.75
"""Coefficient of the bicubic kernel of ``torch.nn.functional.interpolate``."""


def bicubic_weights(count: int, offset: Tensor | float, device: torch.device) -> Tensor:
    """Weights that resample ``GRID`` table entries to ``count`` positions: float32 (count, GRID), rows sum to 1.

    Position i reads the table at ``(i + 0.5) · GRID / (count + offset) − 0.5`` with Keys' cubic kernel over four
    entries, the table's ends repeated. This is ``interpolate(scale_factor=(count + offset) / GRID, mode="bicubic")``
    along one axis, written as a matrix so that it can be exported with a free ``count``.
    """
    source = (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (GRID / (count + offset)) - 0.5
    nearest = source.floor()
    t = (source - nearest)[:, None]
    distance = torch.cat([t + 1, t, 1 - t, 2 - t], dim=1)
    inner = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance * distance + 1
    outer = ((_CUBIC * distance - 5 * _CUBIC) * distance + 8 * _CUBIC) * distance - 4 * _CUBIC
    weight = torch.where(distance <= 1, inner, outer)
    entry = (nearest[:, None] + torch.arange(-1, 3, device=device)).clamp(0, GRID - 1)
    hit = entry[..., None] == torch.arange(GRID, device=device)
    return (weight[..., None] * hit).sum(dim=1)


def smooth_position_table(dim: int) -> Tensor:
    """Two-dimensional sine-cosine embedding of the ``GRID`` × ``GRID`` positions: float32 (1, 1 + GRID², dim).

    The class slot is zero. Half the channels code the row, half the column, at wavelengths from 2π to 10 000 · 2π
    patches (arXiv 2111.06377, appendix A). Being smooth it can be resampled to any grid before it has been trained.
    """
    quarter = dim // 4
    rate = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    angle = torch.arange(GRID, dtype=torch.float64)[:, None] * rate
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    table = torch.cat([axis[:, None].expand(-1, GRID, -1), axis[None].expand(GRID, -1, -1)], dim=2)
    return torch.cat([torch.zeros(1, 1, dim), table.reshape(1, GRID * GRID, dim).float()], dim=1)


class SelfAttention(Attention):
    """timm's attention (same parameters) that picks its kernel by what it is needed for.

    PyTorch's fused kernel for processors never forms the attention matrix, but its backward pass takes several times
    as long as three plain matrix products while that matrix is small, as it is for training crops. Where the fused
    kernel does run it gains more from contiguous heads than copying them costs.
    """

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu" and torch.is_grad_enabled() and tokens <= SHORT:
            q, k, v = qkv.unbind(0)
            x = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        else:
            q, k, v = qkv.contiguous().unbind(0)
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class EncoderBlock(Block):
    """timm's block (same parameters) with LayerScale and the residual sum in one pass over memory."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        x = torch.addcmul(x, self.attn(self.norm1(x)).to(x.dtype), self.ls1.gamma)
        return torch.addcmul(x, self.mlp(self.norm2(x)).to(x.dtype), self.ls2.gamma)


class DinoV2(nn.Module):
    """DINOv2 encoder without register tokens; parameter names are those of timm's models.

    ``mask_token`` belongs to the published weights and takes no part in the computation.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.taps = size.taps
        self.dim = size.dim
        self.activation_checkpointing = False
        self.patch_embed = PatchEmbed(None, PATCH, embed_dim=size.dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID * GRID, size.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, size.dim), requires_grad=False)
        hidden = 2 * size.ffn if size.swiglu else size.ffn
        mlp: Any = SwiGLUPacked if size.swiglu else Mlp
        self.blocks = nn.ModuleList(
            EncoderBlock(
                size.dim,
                size.heads,
                mlp_ratio=(hidden + 0.5) / size.dim,
                qkv_bias=True,
                init_values=1.0,
                act_layer=nn.SiLU if size.swiglu else nn.GELU,
                mlp_layer=mlp,
                attn_layer=SelfAttention,
            )
            for _ in range(size.depth)
        )
        self.norm = LayerNorm(size.dim)
        self._initialise(smooth_positions=not size.pretrained)

    def _initialise(self, smooth_positions: bool) -> None:
        """Truncated normal of deviation 0.02 for tables and linear layers, zero biases, as DINOv2 starts."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if smooth_positions:
            with torch.no_grad():
                self.pos_embed.copy_(smooth_position_table(self.dim))

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positional embedding for a patch grid: (1, 1 + rows · columns, dim), in the dtype of the table.

        The stored table itself at 37 × 37; elsewhere resampled in float32 with the 0.1 offset of the original code.
        """
        table = self.pos_embed
        offset: Tensor | float = OFFSET
        if torch.compiler.is_exporting():
            # Exported shapes are free, so whether the grid is the native one is decided when the graph runs.
            native = _length(rows, table).eq(GRID) & _length(columns, table).eq(GRID)
            offset = torch.where(native, 0.0, OFFSET)
        elif rows == GRID and columns == GRID:
            return table
        with full_precision(table.device):
            down = bicubic_weights(rows, offset, table.device)
            across = bicubic_weights(columns, offset, table.device)
            grid = down @ table[0, 1:].float().reshape(GRID, GRID * self.dim)
            grid = across @ grid.reshape(rows, GRID, self.dim)
        return torch.cat([table[:, :1], grid.reshape(1, rows * columns, self.dim).to(table.dtype)], dim=1)

    def embed(self, image: Tensor) -> Tensor:
        """Class token and patch tokens with their positions: (B, 1 + H/14 · W/14, dim)."""
        batch, channels, height, width = image.shape
        rows, columns = height // PATCH, width // PATCH
        # The convolution of the patches, written as the matrix product it is: that needs no change of layout after it.
        pixels = image.reshape(batch, channels, rows, PATCH, columns, PATCH).permute(0, 2, 4, 1, 3, 5)
        pixels = pixels.reshape(batch, rows * columns, channels * PATCH * PATCH)
        layer = self.patch_embed.proj
        position = self.positions(rows, columns)
        patches = F.linear(pixels, layer.weight.flatten(1), layer.bias) + position[:, 1:]
        first = (self.cls_token + position[:, :1]).expand(batch, -1, -1)
        return torch.cat([first, patches], dim=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Normed patch tokens of the four tapped blocks.

        Args:
            image: (B, 3, H, W), ImageNet-normalised, H and W multiples of 14.

        Returns:
            Four tensors (B, H/14 · W/14, dim), shallowest first; the class token is left out.
        """
        x = self.embed(image)
        tapped = []
        for index, block in enumerate(self.blocks):
            recompute = self.activation_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if index in self.taps:
                tapped.append(self.norm(x)[:, 1:])
        return tapped


def _length(count: int, like: Tensor) -> Tensor:
    """``count`` as a tensor that stays symbolic in an exported graph."""
    return torch.ones(count, device=like.device).sum()
