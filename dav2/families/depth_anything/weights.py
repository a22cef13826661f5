"""Model directories, and every other place weights come from or go to.

A model directory holds ``model.safetensors`` (float32, our parameter names), ``config.json`` and ``card.md``. Nothing
here ever unpickles objects: foreign ``.pth`` files go through ``torch.load(weights_only=True)`` and no fallback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dav2.failures import reason
from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.names import State
from dav2.families.depth_anything.sizes import SIZES
from dav2.families.directory import WeightsError, number, read_json
from dav2.files import open_regular, write_whole, written_whole
from dav2.layout import CARD, CONFIG, WEIGHTS
from dav2.maps import Quantity

FORMAT = "dav2"
FAMILY = "depth_anything"


def save_directory(model: DepthAnything, path: Path | str, card: str = "", extra: dict[str, Any] | None = None) -> Path:
    """Write ``model`` as a model directory.

    Args:
        model: weights are stored in float32.
        path: the directory; made if it is not there, its three files replaced if it is.
        card: Markdown for ``card.md``: what the model is, what it was trained on, its licence.
        extra: further JSON values for ``config.json`` under ``extra`` (parents, recipe …).

    Returns:
        ``path``. ``model.safetensors`` is written last: a directory that has it is whole.
    """
    path = Path(path)
    config = _config_json(model.config)
    document = {"format": FORMAT, "family": FAMILY, **config, "predicts": model.config.quantity.unit}
    if extra:
        document["extra"] = extra
    write_whole(path / CARD, card)
    write_whole(path / CONFIG, json.dumps(document, indent=2) + "\n")
    state = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path / WEIGHTS) as temporary:
        # The settings go into the file as well, so that its digest tells models apart that differ only in max_depth.
        save_file(state, temporary, metadata={FORMAT: json.dumps(config, sort_keys=True)})
    return path


def load_directory(path: Path | str) -> DepthAnything:
    """Read a model directory into a model on the CPU, in evaluation mode.

    Raises:
        WeightsError: a file is missing or damaged, or weights and configuration do not fit together.
    """
    path = Path(path)
    config = read_config(path)
    model = empty_model(config)
    assign(model, read_safetensors(path / WEIGHTS), str(path / WEIGHTS))
    return model


def read_config(path: Path) -> ModelConfig:
    """The configuration of a model directory."""
    file = path / CONFIG
    try:
        document = read_json(file)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not a model directory: it has no {CONFIG}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WeightsError(f'{file} does not describe a dav2 model (no "format": "{FORMAT}")')
    try:
        metres = document["max_depth"]
        size, input_size = document["size"], document["input_size"]
        if not isinstance(size, str) or isinstance(input_size, bool) or not isinstance(input_size, int):
            raise ValueError(f"size must be a name and input_size a whole number, not {size!r} and {input_size!r}")
        target = Quantity(document.get("quantity", Quantity.DISPARITY))
        return ModelConfig(size, None if metres is None else number(metres, "max_depth"), input_size, target)
    except KeyError as error:
        raise WeightsError(f"{file} lacks the key {error}") from None
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{file}: {error}") from None


def empty_model(config: ModelConfig) -> DepthAnything:
    """A model on the meta device, to be filled by :func:`assign`: random weights are never drawn."""
    with torch.device("meta"):
        return DepthAnything(config).eval()


def assign(model: DepthAnything, state: State, name: str, part: nn.Module | None = None) -> None:
    """Put ``state`` (our parameter names) into ``model``, or into ``part`` of it, strictly.

    Raises:
        WeightsError: names or shapes do not fit (the message lists them, and names the size that would), or a value is
            not finite.
    """
    module = model if part is None else part
    expected = module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape)
    if missing or unexpected or wrong:
        raise WeightsError(_explain(name, model.config.size, state, expected, missing, unexpected, wrong))
    for key, tensor in state.items():
        kind = _unusual(tensor)
        if kind:
            raise WeightsError(f"{name}: '{key}' is {kind}; weights are plain tensors of real numbers")
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"{name}: '{key}' holds values that are not finite; the weights are damaged")
    frozen = {key for key, parameter in module.named_parameters() if not parameter.requires_grad}
    module.load_state_dict({key: tensor.float().contiguous() for key, tensor in state.items()}, assign=True)
    for key, parameter in module.named_parameters():
        parameter.requires_grad_(key not in frozen)


def read_safetensors(file: Path) -> State:
    """Tensors of a safetensors file.

    Raises:
        WeightsError: the file is missing, cut short or not in that format.
    """
    try:
        # Opened first, since the library would wait for ever for a pipe.
        with open_regular(file):
            return load_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing") from None
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {reason(error)}") from None
    except MemoryError:
        raise
    except Exception as error:
        # SafetensorError, and what torch raises for types and sizes that a damaged header names.
        raise WeightsError(f"{file} is not a whole safetensors file: {error}") from None


def guess_size(state: State) -> str | None:
    """Name of the size whose encoder has the shapes found in ``state`` (our names), or ``None``."""
    table = state.get("encoder.pos_embed")
    blocks = count_blocks(state, "encoder.blocks.")
    for name, size in SIZES.items():
        if table is not None and table.dim() and table.shape[-1] == size.dim and blocks == size.depth:
            return name
    return None


def count_blocks(state: State, prefix: str) -> int:
    """Number of transformer blocks by the names of their parameters, which go on with a number after ``prefix``."""
    words = (name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix))
    return max((int(word) for word in words if word.isascii() and word.isdigit()), default=-1) + 1


def _unusual(tensor: Tensor) -> str | None:
    """What a tensor is that cannot be taken as it is, or ``None``."""
    if tensor.is_meta:
        return "without values (a meta tensor)"
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_sparse or tensor.layout != torch.strided or tensor.is_nested:
        return "sparse"
    if not tensor.is_floating_point():
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    return None


def _config_json(config: ModelConfig) -> dict[str, Any]:
    known: dict[str, Any] = {"size": config.size, "max_depth": config.max_depth, "input_size": config.input_size}
    # Named only where it is not the usual one: what stands here decides the digest of the weights file.
    return known if config.target is Quantity.DISPARITY else {**known, "quantity": config.target.value}


def _explain(
    name: str, size: str, state: State, expected: State, missing: list[str], unexpected: list[str], wrong: list[str]
) -> str:
    guess = guess_size(state)
    if guess not in (None, size):
        return f"{name} holds weights of size {guess}, not {size}"
    lines = [f"{name} does not fit a model of size {size}:"]
    lines += [f"  missing: {_some(missing)}"] if missing else []
    lines += [f"  unexpected: {_some(unexpected)}"] if unexpected else []
    shapes = [f"{k} {tuple(state[k].shape)} instead of {tuple(expected[k].shape)}" for k in wrong]
    lines += [f"  wrong shape: {_some(shapes)}"] if wrong else []
    return "\n".join(lines)


def _some(names: list[str], limit: int = 12) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
