"""DINOv3 encoders of other programs, in and out: Hugging Face's folders, timm's files and folders, the original files.

All hold the same tensors, some of them in parts: query, key and value, the biases of these, and the two halves of a
gated feed-forward part. In the original files keys have a bias that a mask removes; it is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from dav2.families.depth_anything.dinov3 import BASE, EPSILON, REGISTERS
from dav2.families.depth_anything.hugging_face import compare
from dav2.families.depth_anything.sizes import PATCH_3, SIZES, get_size
from dav2.families.depth_anything.weights import guess_size
from dav2.families.directory import WeightsError, peek
from dav2.families.weights import State
from dav2.layout import CONFIG

LICENCE = "DINOv3 License"
_REGISTERS = ("reg_token", "storage_tokens", "embeddings.register_tokens")
_RULES = [
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^(embeddings\.register_tokens|storage_tokens)$", "reg_token"),
    (r"^embeddings\.", ""),
    (r"^(model\.)?layer\.", "blocks."),
    (r"\.attention\.([qkv])_proj\.weight$", r".attn.\1.weight"),
    (r"\.attention\.([qkv])_proj\.bias$", r".attn.\1_bias"),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"\.mlp\.(gate_proj|fc1_g|w1)\.", ".mlp.gate."),
    (r"\.mlp\.(up_proj|fc1_x|w2)\.", ".mlp.value."),
    (r"\.mlp\.(down_proj|w3)\.", ".mlp.fc2."),
]
"""Names of all three schemes to ours, joint tensors still in parts; names of ours stay as they are."""
_COMPUTED = re.compile(r"\.bias_mask$|^rope_embed\.|^rope\.")
"""What the original files hold of numbers that are computed anew."""


def is_dinov3(state: State) -> bool:
    """Whether a table of weights, under the names of any of these programs, is a DINOv3 encoder."""
    return "pos_embed" not in state and any(name in state for name in _REGISTERS)


def is_dinov3_folder(path: Path) -> bool:
    """Whether a folder's ``config.json`` says that it holds a DINOv3 vision transformer: Hugging Face's, or timm's."""
    if not path.is_dir():
        return False
    document = peek(path)
    return document.get("model_type") == "dinov3_vit" or "dinov3" in str(document.get("architecture"))


def read_dinov3(state: State, path: Path) -> tuple[State, str]:
    """Encoder weights under our names, without ``encoder.``, and the name of their size.

    Args:
        state: under the names of any of these programs.
        path: file or folder, for messages; a folder of Hugging Face is compared with the network that we build.

    Raises:
        WeightsError: it is no size that we build, another network, or names and shapes contradict each other.
    """
    renamed: State = {}
    for name, tensor in state.items():
        if _COMPUTED.search(name):
            continue
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        if name in renamed:
            raise WeightsError(f"{path}: two tensors are '{name}' under the names of several programs; remove one")
        renamed[name] = tensor
    try:
        joined = _joined(renamed)
    except (RuntimeError, IndexError) as error:
        # What torch raises where parts of one tensor have not the shapes to be put together.
        raise WeightsError(f"{path}: no DINOv3 encoder: its tensors do not fit together: {error}") from None
    size = guess_size({f"encoder.{name}": tensor for name, tensor in joined.items()})
    if size is None:
        known = ", ".join(f"{name} ({each.dim} × {each.depth})" for name, each in SIZES.items() if each.dinov3)
        raise WeightsError(f"{path}: a DINOv3 encoder of no size that is built here; there are: {known}")
    if path.is_dir() and peek(path).get("model_type") == "dinov3_vit":
        compare(path / CONFIG, "", peek(path), _described(size), "DINOv3")
    return joined, size


def _joined(state: State) -> State:
    """The tensors that we keep together put together, and those that a program leaves out filled in."""
    state = dict(state)
    for name in [name for name in state if name.endswith(".attn.q.weight")]:
        parts = [state.pop(name.replace(".q.", f".{part}."), None) for part in "qkv"]
        if all(part is not None for part in parts):
            state[name.replace(".q.", ".qkv.")] = torch.cat([part for part in parts if part is not None])
    for name in [name for name in state if ".mlp.value." in name]:
        value, gate = state.pop(name), state.pop(name.replace(".value.", ".gate."), None)
        state[name.replace(".value.", ".fc1.")] = value if gate is None else torch.cat([gate, value])
    for name in [name for name in state if name.endswith(".attn.qkv.bias")]:
        query, _, value = state.pop(name).chunk(3)
        state |= {name.replace("qkv.bias", "q_bias"): query, name.replace("qkv.bias", "v_bias"): value}
    for name in [name for name in state if name.endswith(".attn.qkv.weight")]:
        # timm keeps the sizes whose biases ended at zero without them.
        for bias in ("q_bias", "v_bias"):
            state.setdefault(name.replace("qkv.weight", bias), state[name].new_zeros(state[name].shape[-1]))
    if (token := state.get("cls_token")) is not None:
        # timm's files lack it; it takes no part in the computation.
        state["mask_token"] = state.get("mask_token", torch.zeros(token.shape[-1])).reshape(1, -1)
    return state


def _described(size: str) -> dict[str, object]:
    """``config.json`` of Hugging Face, as far as it decides what the network computes."""
    network = get_size(size)
    return {
        "hidden_size": network.dim,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads,
        "intermediate_size": network.ffn,
        "use_gated_mlp": network.swiglu,
        "hidden_act": "silu" if network.swiglu else "gelu",
        "num_register_tokens": REGISTERS,
        "patch_size": PATCH_3,
        "rope_theta": BASE,
        "layer_norm_eps": EPSILON,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "proj_bias": True,
        "mlp_bias": True,
        "num_channels": 3,
    }


def to_timm(state: State, gated: bool) -> State:
    """Our names, without ``encoder.``, to those of timm's models whose names end in ``dinov3_qkvb``."""
    found: State = {}
    for name, tensor in state.items():
        if gated and ".mlp.fc1." in name:
            gate, value = tensor.chunk(2)
            found |= {name.replace("fc1", "fc1_g"): gate.clone(), name.replace("fc1", "fc1_x"): value.clone()}
        elif name != "mask_token":
            found[re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)] = tensor
    return found
