"""Weights of other projects: the published ``.pth`` files, DINOv2, timm and Hugging Face, in and out."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dav2.families.depth_anything.dinov3_files import is_dinov3, is_dinov3_folder, read_dinov3, to_timm
from dav2.families.depth_anything.hugging_face import (
    PREPROCESSOR,
    describe,
    describe_preprocessor,
    read_hugging_face,
    size_of,
    width_of,
)
from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.names import DINOV2, HUGGING_FACE, OFFICIAL, Rules, table, to_ours, to_theirs
from dav2.families.depth_anything.sizes import PATCH, get_size
from dav2.families.depth_anything.weights import assign, count_blocks, empty_model
from dav2.families.directory import WeightsError, read_json
from dav2.families.weights import State, read_safetensors
from dav2.files import write_whole, written_whole
from dav2.layout import CONFIG, WEIGHTS

RANGES = {"hypersim": 20.0, "vkitti": 80.0}
"""Range in metres of the published metric weights, by the data set in their file names."""
_SHORT = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}


def load_official(path: Path, max_depth: float | None = None) -> DepthAnything:
    """A published ``.pth`` file, or ``latest.pth`` of the published trainer, as a model.

    The file does not say whether its model is metric: ``max_depth`` does, or the name of a published file.

    Raises:
        WeightsError: not such a file, not tensors only, damaged, or a trainer's checkpoint without ``max_depth``.
    """
    content = read_pth(path)
    trainer = "model" in content and isinstance(content["model"], dict)
    state = flat_state(content, path)
    if "pretrained.pos_embed" not in state:
        raise WeightsError(f"{path} is not a Depth Anything V2 file: it has no 'pretrained.pos_embed'")
    size = size_of(width_of(state["pretrained.pos_embed"], path), count_blocks(state, "pretrained.blocks."), path)
    if max_depth is None:
        max_depth = next((metres for name, metres in RANGES.items() if f"metric_{name}" in path.name), None)
    if max_depth is None and trainer:
        raise WeightsError(f"{path} is a checkpoint of the metric trainer; say its range in metres with max_depth")
    return _filled(ModelConfig(size, max_depth, get_size(size).input_size), state, OFFICIAL, path)


def save_official(model: DepthAnything, path: Path) -> None:
    """Write a flat ``.pth`` file that the published inference code loads.

    Raises:
        WeightsError: that code has no such encoder or head.
    """
    _published(model, path)
    # Given a name, PyTorch writes it into the file, and refuses some.
    with written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(_renamed(model, OFFICIAL), file)


def load_hugging_face(path: Path) -> DepthAnything:
    """A folder of ``DepthAnythingForDepthEstimation`` as a model.

    Raises:
        WeightsError: a file is missing or damaged, or describes a network or a preparation of images that is not the
            published one of its size, whose weights would then give other maps than in ``transformers``.
    """
    try:
        config = read_json(path / CONFIG)
    except FileNotFoundError:
        raise WeightsError(f"{path}: it has no {CONFIG}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path / CONFIG} must be an object")
    state = read_safetensors(path / WEIGHTS)
    # transformers ≥ 5 has shorter names in memory; its files keep the first ones, other tools write what they see.
    for short, long in _SHORT.items():
        state = {name.replace(f".attention.{short}.", f".attention.{long}."): state[name] for name in state}
    return _filled(read_hugging_face(path, config, state), state, HUGGING_FACE, path)


def save_hugging_face(model: DepthAnything, path: Path) -> None:
    """Write a folder that ``transformers`` loads: weights, ``config.json`` and ``preprocessor_config.json``.

    Raises:
        WeightsError: the range is no whole number of metres, which is all that ``transformers`` takes, or it has no
            such encoder or head.
    """
    _published(model, path)
    if model.config.max_depth is not None and not model.config.max_depth.is_integer():
        raise WeightsError(f"{path}: transformers takes whole metres only, not max_depth = {model.config.max_depth}")
    write_whole(path / CONFIG, json.dumps(describe(model.config), indent=2) + "\n")
    processor = json.dumps(describe_preprocessor(model.config.input_size), indent=2)
    write_whole(path / PREPROCESSOR, processor + "\n")
    with written_whole(path / WEIGHTS) as temporary:
        save_file(_renamed(model, HUGGING_FACE), temporary, metadata={"format": "pt"})


def _published(model: DepthAnything, path: Path) -> None:
    """Refuse a model that no published code would read, or would take for one of depth."""
    if not model.quantity.is_depth:
        raise WeightsError(
            f"{path}: no other program has Depth Anything for {model.quantity.unit}; export it as onnx, torch or "
            "encoder"
        )
    if get_size(model.config.size).dinov3:
        raise WeightsError(
            f"{path}: no other program has Depth Anything on DINOv3, so that none reads {model.config.size} in this "
            "form; export it as onnx, torch or encoder"
        )


def save_encoder(model: DepthAnything, path: Path) -> None:
    """Write the encoder alone, for other models to start from: float16 under DINOv2's names, or timm's of DINOv3.

    Half the bytes of float32; a start needs no more digits.
    """
    state = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in _encoder(model).items()}
    with written_whole(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt", "size": model.config.size})


def _encoder(model: DepthAnything) -> State:
    if get_size(model.config.size).dinov3:
        return to_timm(model.encoder.state_dict(), get_size(model.config.size).swiglu)
    state = {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    return to_theirs(state, table(state, DINOV2, get_size(model.config.size).swiglu))


def encoder_state(path: Path) -> tuple[State, str]:
    """Encoder weights (our names, without ``encoder.``) of a DINOv2 or DINOv3 file, or of a published model.

    Args:
        path: a file of the original hubs or of timm, a published ``.pth``, or a folder that holds a DINOv3 encoder.

    Returns:
        the state and the name of its size.
    """
    state = _tensors(path)
    if is_dinov3(state):
        return read_dinov3(state, path)
    if "pretrained.pos_embed" in state:
        state = {k.removeprefix("pretrained."): v for k, v in state.items() if k.startswith("pretrained.")}
    if "pos_embed" not in state:
        raise WeightsError(f"{path} holds no vision transformer: it has no 'pos_embed'")
    if "register_tokens" in state or "reg_token" in state:
        raise WeightsError(f"{path} is a DINOv2 model with register tokens; there is the one without, and DINOv3")
    width = width_of(state["pos_embed"], path)
    size = size_of(width, count_blocks(state, "blocks."), path)
    gated = any(".mlp.w12." in name for name in state)
    keys = [f"encoder.{name}" for name in empty_model(ModelConfig(size, None, PATCH)).encoder.state_dict()]
    state = to_ours(state, table(keys, DINOV2, gated))
    state = {name.removeprefix("encoder."): tensor for name, tensor in state.items()}
    # timm's files lack it; it takes no part in the computation.
    state.setdefault("mask_token", torch.zeros(1, width))
    return state, size


def holds_dinov3(path: Path) -> bool:
    """Whether a file or folder holds a DINOv3 encoder of another program."""
    if path.is_dir():
        return is_dinov3_folder(path)
    return path.is_file() and is_dinov3(_tensors(path))


def _tensors(path: Path) -> State:
    if path.is_dir():
        return read_safetensors(path / WEIGHTS)
    return read_safetensors(path) if path.suffix == ".safetensors" else flat_state(read_pth(path), path)


def read_pth(path: Path) -> dict[str, object]:
    """A PyTorch file of tensors and plain values; anything else in it is refused, never run.

    Raises:
        WeightsError: missing, damaged, or holding other objects (the message names the first).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except pickle.UnpicklingError as error:
        culprit = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        if culprit is None:
            raise WeightsError(f"{path} is refused: it is not a PyTorch file of tensors alone") from None
        raise WeightsError(f"{path} is refused: it holds '{culprit[1]}', which loading would have to run") from None
    except MemoryError:
        raise
    except Exception as error:
        # What is no pickle at all fails anywhere: a KeyError holds nothing but the number of a letter.
        said = str(error).split("\n")[0] or "it is empty"
        why = said if isinstance(error, RuntimeError | OSError | EOFError) else "it holds something else"
        raise WeightsError(f"{path} is not a whole PyTorch file: {why}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a table of weights")
    return content


def flat_state(content: dict[str, Any], path: Path) -> State:
    """The table of weights in a file's content: unwrapped from ``model``, ``module.`` prefixes removed."""
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    state = {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not state:
        raise WeightsError(f"{path} holds no tensors by name")
    return state


def _filled(config: ModelConfig, state: State, rules: Rules, path: Path) -> DepthAnything:
    model = empty_model(config)
    names = table(model.state_dict(), rules, get_size(config.size).swiglu)
    assign(model, to_ours(state, names), str(path))
    return model


def _renamed(model: DepthAnything, rules: Rules) -> State:
    state = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()}
    return to_theirs(state, table(state, rules, get_size(model.config.size).swiglu))
