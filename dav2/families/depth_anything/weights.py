"""Model directories, and every other place weights come from or go to.

A model directory holds ``model.safetensors`` (float32, our parameter names), ``config.json`` and ``card.md``. Nothing
here ever unpickles objects: foreign ``.pth`` files go through ``torch.load(weights_only=True)`` and no fallback.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.sizes import SIZES
from dav2.families.directory import WeightsError, number
from dav2.families.weights import State, fill, read_document, read_safetensors, write_directory
from dav2.layout import CONFIG, WEIGHTS
from dav2.maps import Quantity

FAMILY = "depth_anything"


def save_directory(
    model: DepthAnything, path: Path | str, card: str = "", extra: dict[str, object] | None = None
) -> Path:
    """Write ``model`` as a model directory.

    Args:
        model: weights are stored in float32.
        path: the directory; made if it is not there, its three files replaced if it is.
        card: Markdown for ``card.md``: what the model is, what it was trained on, its licence.
        extra: further JSON values for ``config.json`` under ``extra`` (parents, recipe …).

    Returns:
        ``path``. ``model.safetensors`` is written last: a directory that has it is whole.
    """
    return write_directory(
        Path(path), model, FAMILY, config_json(model.config), model.config.quantity.unit, card, extra
    )


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
    return config_of(read_document(path), str(path / CONFIG))


def config_of(document: Mapping[str, Any], name: str) -> ModelConfig:
    """The configuration that a document describes; ``name`` is where it stands, for messages.

    Raises:
        WeightsError: a key is missing or holds what cannot be.
    """
    try:
        metres = document["max_depth"]
        size, input_size = document["size"], document["input_size"]
        if not isinstance(size, str) or isinstance(input_size, bool) or not isinstance(input_size, int):
            raise ValueError(f"size must be a name and input_size a whole number, not {size!r} and {input_size!r}")
        target = Quantity(document.get("quantity", Quantity.DISPARITY))
        return ModelConfig(size, None if metres is None else number(metres, "max_depth"), input_size, target)
    except KeyError as error:
        raise WeightsError(f"{name} lacks the key {error}") from None
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{name}: {error}") from None


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
    guess, size = guess_size(state), model.config.size
    if guess not in (None, size):
        raise WeightsError(f"{name} holds weights of size {guess}, not {size}")
    fill(model if part is None else part, state, name, f"a model of size {size}")


def guess_size(state: State) -> str | None:
    """Name of the size whose encoder has the shapes found in ``state`` (our names), or ``None``."""
    token, first = state.get("encoder.cls_token"), state.get("encoder.blocks.0.mlp.fc1.weight")
    if token is None or first is None or not token.dim():
        return None
    blocks, dinov3 = count_blocks(state, "encoder.blocks."), "encoder.reg_token" in state
    for name, size in SIZES.items():
        hidden = 2 * size.ffn if size.swiglu else size.ffn
        if (token.shape[-1], blocks, first.shape[0], dinov3) == (size.dim, size.depth, hidden, size.dinov3):
            return name
    return None


def count_blocks(state: State, prefix: str) -> int:
    """Number of transformer blocks by the names of their parameters, which go on with a number after ``prefix``."""
    words = (name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix))
    return max((int(word) for word in words if word.isascii() and word.isdigit()), default=-1) + 1


def config_json(config: ModelConfig) -> dict[str, object]:
    """What it takes to build a model again."""
    known: dict[str, object] = {"size": config.size, "max_depth": config.max_depth, "input_size": config.input_size}
    # Named only where it is not the usual one: what stands here decides the digest of the weights file.
    return known if config.target is Quantity.DISPARITY else {**known, "quantity": config.target.value}
