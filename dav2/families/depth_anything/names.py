"""Parameter names of other projects, and back.

A scheme is a list of substitutions that turns one of our names into theirs; applied to all names of a model it is a
one-to-one table, so the way back needs no rules of its own. Values are never changed, only Hugging Face's separate
query, key and value are cut from our joint projection, or joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from dav2.families.weights import State

Rules = list[tuple[str, str]]

_GATED: Rules = [(r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3.")]

OFFICIAL: Rules = [
    (r"^encoder\.", "pretrained."),
    (r"^decoder\.project\.", "depth_head.projects."),
    (r"^decoder\.resize\.", "depth_head.resize_layers."),
    *((rf"^decoder\.lateral\.{k}\.", f"depth_head.scratch.layer{k + 1}_rn.") for k in range(4)),
    *((rf"^decoder\.fusion\.{k}\.", f"depth_head.scratch.refinenet{k + 1}.") for k in range(4)),
    (r"\.lateral_unit\.", ".resConfUnit1."),
    (r"\.unit\.", ".resConfUnit2."),
    (r"\.out\.", ".out_conv."),
    (r"^decoder\.head1\.", "depth_head.scratch.output_conv1."),
    (r"^decoder\.head2\.", "depth_head.scratch.output_conv2.0."),
    (r"^decoder\.head3\.", "depth_head.scratch.output_conv2.2."),
]
"""The published ``.pth`` files."""

DINOV2: Rules = [(r"^encoder\.", "")]
"""The encoder as DINOv2's hub publishes it, and (but for the gated names) as timm does."""

HUGGING_FACE: Rules = [
    (r"^encoder\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^encoder\.(cls_token|mask_token)$", r"backbone.embeddings.\1"),
    (r"^encoder\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^encoder\.norm\.", "backbone.layernorm."),
    (r"^encoder\.blocks\.", "backbone.encoder.layer."),
    (r"\.attn\.qkv\.", ".attention.attention.qkv."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.w12\.", ".weights_in."),
    (r"\.w3\.", ".weights_out."),
    (r"^decoder\.project\.(\d)\.", r"neck.reassemble_stage.layers.\1.projection."),
    (r"^decoder\.resize\.(\d)\.", r"neck.reassemble_stage.layers.\1.resize."),
    (r"^decoder\.lateral\.", "neck.convs."),
    *((rf"^decoder\.fusion\.{k}\.", f"neck.fusion_stage.layers.{3 - k}.") for k in range(4)),
    (r"\.lateral_unit\.conv", ".residual_layer1.convolution"),
    (r"\.unit\.conv", ".residual_layer2.convolution"),
    (r"\.out\.", ".projection."),
    (r"^decoder\.head([123])\.", r"head.conv\1."),
]
"""``DepthAnythingForDepthEstimation`` as stored by ``transformers``, query, key and value still joined."""

_QKV = ("query", "key", "value")


def table(ours: Iterable[str], rules: Rules, gated: bool) -> dict[str, str]:
    """Our name → theirs, for the names of one model.

    Args:
        ours: parameter names of a model.
        rules: one of the schemes of this module.
        gated: whether the feed-forward part is SwiGLU, whose layers every scheme but timm's names differently.
    """
    names = {}
    for name in ours:
        theirs = name
        for pattern, replacement in [*(_GATED if gated else []), *rules]:
            theirs = re.sub(pattern, replacement, theirs)
        names[name] = theirs
    return names


def to_theirs(state: State, names: dict[str, str]) -> State:
    """``state`` under their names; a joint ``qkv`` of Hugging Face's scheme is cut in three."""
    renamed = {names[name]: tensor for name, tensor in state.items()}
    for name in [name for name in renamed if ".attention.attention.qkv." in name]:
        parts = renamed.pop(name).chunk(3)
        renamed |= {name.replace("qkv", part): tensor.clone() for part, tensor in zip(_QKV, parts, strict=True)}
    return renamed


def to_ours(state: State, names: dict[str, str]) -> State:
    """``state`` under our names; names that the scheme does not know are kept, so that a strict check reports them."""
    joined = dict(state)
    for name in [name for name in state if ".attention.attention.query." in name]:
        keys = [name.replace(".query.", f".{part}.") for part in _QKV]
        if all(key in joined for key in keys):
            joined[name.replace(".query.", ".qkv.")] = torch.cat([joined.pop(key) for key in keys])
    back = {theirs: ours for ours, theirs in names.items()}
    return {back.get(name, name): tensor for name, tensor in joined.items()}
