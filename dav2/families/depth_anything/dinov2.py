"""The DINOv2 vision transformer (arXiv 2304.07193) on timm's blocks, with four tapped outputs.

Two things differ from timm's own DINOv2 models: the positional embedding is resized by the rule of the original code
(timm and ``transformers`` use others, which shift every token a little), and all four tapped outputs pass through the
one final norm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dav2.families.depth_anything.encoder import Encoder, make_blocks
from dav2.families.depth_anything.sizes import GRID, PATCH, Size
from dav2.families.depth_anything.timm_parts import LayerNorm
from dav2.tf32 import full_precision

OFFSET = 0.1
"""Added to the patch grid before the scale factor is formed; the original code's guard against a floor error."""
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


class DinoV2(Encoder):
    """DINOv2 encoder without register tokens; parameter names are those of timm's models."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID * GRID, size.dim))
        self.blocks = make_blocks(size, qkv_bias=True)
        self.norm = LayerNorm(size.dim)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._draw_layers()
        if not (size.pretrained or self.pos_embed.is_meta):
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
        position = self.positions(image.shape[-2] // PATCH, image.shape[-1] // PATCH)
        patches = self.patches(image) + position[:, 1:]
        first = (self.cls_token + position[:, :1]).expand(image.shape[0], -1, -1)
        return torch.cat([first, patches], dim=1)


def _length(count: int, like: Tensor) -> Tensor:
    """``count`` as a tensor that stays symbolic in an exported graph."""
    return torch.ones(count, device=like.device).sum()
