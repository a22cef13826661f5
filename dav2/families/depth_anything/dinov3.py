"""The DINOv3 vision transformer (arXiv 2508.10104) on timm's blocks, with four tapped outputs.

There is no table of positions: queries and keys of the patches are turned by an angle that grows with the patch's row
(half of the channels) and column (the other half), both counted from −1 to 1 over the picture whatever its size and
shape. The class token and four register tokens are not turned. Keys have no bias.

In its own training the coordinates were stretched at random. Here they never are: a depth model sees crops of many
sizes anyway.
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dav2.families.depth_anything.encoder import Encoder, SelfAttention, draw, make_blocks
from dav2.families.depth_anything.sizes import Size
from dav2.families.depth_anything.timm_parts import LayerNorm

REGISTERS = 4
BASE = 100.0
"""Longest period over the shortest, of the angles along one axis."""
EPSILON = 1e-5
"""Of the norms; DINOv2's have 1e-6."""


class RotaryAttention(SelfAttention):
    """Attention that turns queries and keys by their positions; biases for queries and values alone."""

    def __init__(self, dim: int, num_heads: int, **options: object) -> None:
        super().__init__(dim, num_heads, **{**options, "qkv_bias": False})
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[override]
        q, k, v = self.by_head(F.linear(x, self.qkv.weight, self.biases())).unbind(0)
        return self.attend(torch.stack([turn(q, cos, sin), turn(k, cos, sin), v]))

    def biases(self) -> Tensor:
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys (..., N, width) turned by the angles of their positions, whose cosine and sine are (N, width).

    Channel c and channel c + width/2 are the two coordinates of what is turned. Computed in the precision of the
    angles, returned in that of ``x``.
    """
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


class DinoV3(Encoder):
    """DINOv3 encoder; parameter names are those of the original code, but ``q_bias`` and ``v_bias``, timm's."""

    prefix = 1 + REGISTERS

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.width = size.dim // size.heads
        self.reg_token = nn.Parameter(torch.empty(1, REGISTERS, size.dim))
        self.blocks = make_blocks(size, RotaryAttention, norm_layer=partial(LayerNorm, eps=EPSILON))
        self.norm = LayerNorm(size.dim, eps=EPSILON)
        draw(self.reg_token, 0.02)
        self._draw_layers()

    def embed(self, image: Tensor) -> Tensor:
        """Class token, registers and patch tokens: (B, 5 + H/16 · W/16, dim)."""
        first = torch.cat([self.cls_token, self.reg_token], dim=1).expand(image.shape[0], -1, -1)
        return torch.cat([first, self.patches(image)], dim=1)

    def position(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angle of every token and channel: (5 + rows · columns, width), at least float32."""
        like = self.cls_token
        dtype = torch.promote_types(like.dtype, torch.float32)
        quarter = self.width // 4
        rate = 2 * math.pi * BASE ** (-torch.arange(quarter, device=like.device, dtype=dtype) / quarter)

        def along(count: int) -> Tensor:
            middle = (torch.arange(count, device=like.device, dtype=dtype) + 0.5) / count
            return (2 * middle - 1)[:, None] * rate

        down = along(rows)[:, None].expand(rows, columns, quarter)
        across = along(columns)[None].expand(rows, columns, quarter)
        angle = torch.cat([down, across], dim=-1).reshape(rows * columns, 2 * quarter)
        # The tokens before the patches are turned by nothing.
        angle = torch.cat([angle.new_zeros(self.prefix, 2 * quarter), angle]).repeat(1, 2)
        return angle.cos(), angle.sin()
