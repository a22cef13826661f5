"""Blocks of the encoder in packed form: one for bfloat16, one for float32."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dav2.families.depth_anything.dinov3 import turn
from dav2.families.depth_anything.encoder import EncoderBlock, SelfAttention
from dav2.families.depth_anything.packed_layers import packed_linear

LARGEST_SHARE = 0.999
"""Up to this share of the softmax the padded keys are divided out; float32 then still holds four digits of the rest."""


class PackedBlock:
    """One block of the encoder in bfloat16, on a padded sequence."""

    step = 8
    """Token counts are padded to a multiple of this: with 1370 keys attention takes a quarter longer than with 1376."""

    def __init__(self, block: EncoderBlock) -> None:
        attention = block.attn
        assert isinstance(attention, SelfAttention)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.heads, self.width = attention.num_heads, attention.head_dim
        self.qkv = packed_linear(attention.qkv.weight, attention.biases())
        self.proj = packed_linear(attention.proj.weight, attention.proj.bias, block.ls1.gamma)
        self.gated = isinstance(block.mlp.act, nn.SiLU)
        self.fc1 = packed_linear(block.mlp.fc1.weight, block.mlp.fc1.bias)
        self.fc2 = packed_linear(block.mlp.fc2.weight, block.mlp.fc2.bias, block.ls2.gamma)

    def __call__(self, x: Tensor, count: int, *position: Tensor) -> Tensor:
        """Tokens (B, N, dim), of which the first ``count`` are real, to the same; ``x`` may be overwritten.

        ``position`` is what the encoder's blocks take besides, for N tokens.
        """
        x = self.proj.plus(self.attention(self.norm1(x), count, *position), x)
        if not self.gated:
            return self.fc2.plus(self.fc1(self.norm2(x), gelu=True), x)
        gate, value = self.fc1(self.norm2(x)).chunk(2, dim=-1)
        return self.fc2.plus(F.silu(gate).mul_(value), x)

    def attention(self, x: Tensor, count: int, *position: Tensor) -> Tensor:
        """Attention of every token to the first ``count``, before its last layer: (B, N, dim) to (B, N, dim)."""
        qkv = self.qkv(x)
        if position:
            # Queries and keys with the heads in front, so that the angles of the tokens fit them.
            both = qkv.unflatten(2, (3 * self.heads, self.width))[:, :, : 2 * self.heads].transpose(1, 2)
            both.copy_(turn(both, *position))
        return self.attend(qkv, count)

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


class FloatBlock(PackedBlock):
    """One block of the encoder in float32, on a sequence that is not padded.

    Query, key and value are made head by head, so that attention finds them contiguous without a copy. Only the query
    has a bias: that of the key moves all scores of a query by one number, which the softmax does not see (where
    keys are turned it would, but there they have none), and that of the value comes out of attention as it went in,
    since the softmax sums to one, so it is part of the bias after it.
    """

    step = 1

    def __init__(self, block: EncoderBlock) -> None:
        super().__init__(block)
        dim = self.heads * self.width
        weight, bias = block.attn.qkv.weight.detach(), block.attn.biases().detach()
        self.by_head = weight.reshape(3 * self.heads, self.width, dim).transpose(1, 2).contiguous()
        self.query_bias = bias[:dim].reshape(self.heads, 1, self.width)
        self.proj.bias = torch.addmv(self.proj.bias, self.proj.weight, bias[2 * dim :])

    def attention(self, x: Tensor, count: int, *position: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        rows, heads = x.reshape(1, batch * tokens, dim), self.heads
        q = torch.baddbmm(self.query_bias, rows.expand(heads, -1, -1), self.by_head[:heads])
        k, v = torch.bmm(rows.expand(2 * heads, -1, -1), self.by_head[heads:]).chunk(2)
        q, k, v = (part.reshape(heads, batch, tokens, self.width).transpose(0, 1) for part in (q, k, v))
        if position:
            q, k = turn(q, *position), turn(k, *position)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim)
