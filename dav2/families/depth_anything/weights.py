"""Model directories, and every other place weights come from or go to.

A model directory holds ``model.safetensors`` (float32, our parameter names), ``config.json`` and ``card.md``. Nothing
here ever unpickles objects: foreign ``.pth`` files go through ``torch.load(weights_only=True)`` and no fallback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.names import State
from dav2.families.depth_anything.sizes import SIZES
from dav2.families.directory import WeightsError
from dav2.files import write_whole, written_whole
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
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is not a model directory: it has no {CONFIG}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WeightsError(f'{file} does not describe a dav2 model (no "format": "{FORMAT}")')
    try:
        metres = document["max_depth"]
        target = Quantity(document.get("quantity", Quantity.DISPARITY))
        return ModelConfig(document["size"], None if metres is None else float(metres), document["input_size"], target)
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
        return load_file(file)
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing") from None
    except SafetensorError as error:
        raise WeightsError(f"{file} is not a whole safetensors file: {error}") from None


def guess_size(state: State) -> str | None:
    """Name of the size whose encoder has the shapes found in ``state`` (our names), or ``None``."""
    table = state.get("encoder.pos_embed")
    depth = 1 + max((int(key.split(".")[2]) for key in state if key.startswith("encoder.blocks.")), default=-1)
    for name, size in SIZES.items():
        if table is not None and table.shape[-1] == size.dim and depth == size.depth:
            return name
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
