"""What ``transformers`` writes beside the weights: which network they are of, and how images are prepared for it.

Both are described for a model of ours, and a folder is read by comparing it with that description: what differs would
be another network, which loads without an error and gives other maps.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from dav2.families.depth_anything.model import ModelConfig
from dav2.families.depth_anything.preprocess import MEAN, STD
from dav2.families.depth_anything.sizes import PATCH, SIZES, Size, get_size
from dav2.families.depth_anything.weights import count_blocks
from dav2.families.directory import WeightsError, number, read_json
from dav2.families.weights import State
from dav2.layout import CONFIG

PREPROCESSOR = "preprocessor_config.json"
_NOT_COMPARED = ("architectures", "torch_dtype", "max_depth", "depth_estimation_type", "backbone_config", "image_size")
_IMPLIED = {
    "patch_size": PATCH,
    "reassemble_factors": [4, 2, 1, 0.5],
    "head_in_index": -1,
    "head_hidden_size": 32,
}
_IMPLIED_OF_BACKBONE = {
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "qkv_bias": True,
    "num_channels": 3,
    "use_mask_token": True,
}
"""Settings that need not be written, because these are what they are then."""


def read_hugging_face(path: Path, config: dict[str, Any], state: State) -> ModelConfig:
    """The model that a folder describes.

    Args:
        path: the folder; ``config`` is its ``config.json``, ``state`` its weights.

    Raises:
        WeightsError: it is no size of Depth Anything V2, or differs from it.
    """
    file = path / CONFIG
    backbone = config.get("backbone_config") or {}
    if not isinstance(backbone, dict):
        raise WeightsError(f"{file}: backbone_config must be an object")
    width = backbone.get("hidden_size", config.get("reassemble_hidden_size", 384))
    size = size_of(width, count_blocks(state, "backbone.encoder.layer."), path)
    kind = config.get("depth_estimation_type") or "relative"
    if kind not in ("relative", "metric"):
        raise WeightsError(f"{file}: depth_estimation_type must be relative or metric, not {kind!r}")
    try:
        max_depth = number(config.get("max_depth") or 1, "max_depth") if kind == "metric" else None
        found = ModelConfig(size, max_depth, _input_size(path, get_size(size).input_size))
    except ValueError as error:
        raise error if isinstance(error, WeightsError) else WeightsError(f"{file}: {error}") from None
    expected = describe(found)
    compare(file, "", config, {**expected, **_IMPLIED})
    compare(file, "backbone_config.", backbone, {**expected["backbone_config"], **_IMPLIED_OF_BACKBONE})
    return found


def compare(
    file: Path, prefix: str, found: dict[str, object], expected: dict[str, object], network: str = "Depth Anything V2"
) -> None:
    """Refuse a configuration that says of the network anything but ``expected``; what it leaves out is as expected.

    Raises:
        WeightsError: the message names the key.
    """
    for key, value in expected.items():
        if key in _NOT_COMPARED or found.get(key) is None or _same(found[key], value):
            continue
        raise WeightsError(
            f"{file}: {prefix}{key} is {found[key]!r}, where {network} of this size has {value!r}: "
            "it is another network, which is not read"
        )


def _same(one: object, other: object) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        try:
            return math.isclose(one, other, rel_tol=1e-3)
        except OverflowError:  # A whole number that no float can hold.
            return False
    return bool(one == other)


def _input_size(path: Path, native: int) -> int:
    """Short side of the input by the folder's preprocessor; ``native`` where it has none.

    Raises:
        WeightsError: images are to be prepared in another way than ours.
    """
    file = path / PREPROCESSOR
    try:
        found = read_json(file)
    except FileNotFoundError:
        return native
    if not isinstance(found, dict):
        raise WeightsError(f"{file} must be an object")
    size = found.get("size")
    sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [size, size]
    expected = describe_preprocessor(native)
    for key, value in expected.items():
        if key in ("size", "image_processor_type") or found.get(key) is None or _same(found[key], value):
            continue
        raise WeightsError(f"{file}: {key} is {found[key]!r}, where images are prepared with {value!r}; not read")
    if size is None:
        return native
    if sides[0] != sides[1] or isinstance(sides[0], bool) or not isinstance(sides[0], int):
        raise WeightsError(f"{file}: size must have equal height and width, not {size!r}")
    return sides[0]


def describe_preprocessor(input_size: int) -> dict[str, object]:
    """``preprocessor_config.json`` for images prepared as ours are."""
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": input_size, "width": input_size},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": PATCH,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
        "do_pad": False,
    }


def width_of(table: Tensor, path: Path) -> int:
    """Width of the tokens by the table of positions."""
    if table.dim() != 3:
        raise WeightsError(f"{path}: 'pos_embed' has shape {tuple(table.shape)}, not (1, positions, width)")
    return int(table.shape[-1])


def size_of(width: int, depth: int, path: Path) -> str:
    """Size of the network that a configuration describes, its encoder being DINOv2's."""
    sizes = {name: size for name, size in SIZES.items() if not size.dinov3}
    for name, size in sizes.items():
        if (size.dim, size.depth) == (width, depth):
            return name
    known = ", ".join(f"{name} ({size.dim} × {size.depth})" for name, size in sizes.items())
    raise WeightsError(f"{path}: no size has width {width} and {depth} blocks; there are: {known}")


def describe(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` for a model."""
    size: Size = get_size(config.size)
    stages = [tap + 1 for tap in size.taps]
    backbone = {
        "model_type": "dinov2",
        "hidden_size": size.dim,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "mlp_ratio": 4,
        "use_swiglu_ffn": size.swiglu,
        "image_size": 518,
        "patch_size": PATCH,
        "out_indices": stages,
        "out_features": [f"stage{stage}" for stage in stages],
        "apply_layernorm": True,
        "reshape_hidden_states": False,
    }
    return {
        "architectures": ["DepthAnythingForDepthEstimation"],
        "model_type": "depth_anything",
        "backbone_config": backbone,
        "reassemble_hidden_size": size.dim,
        "neck_hidden_sizes": list(size.out_channels),
        "fusion_hidden_size": size.features,
        "depth_estimation_type": "metric" if config.metric else "relative",
        "max_depth": int(config.max_depth or 1),
        "torch_dtype": "float32",
    }
