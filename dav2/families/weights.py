"""Weights of any family: tensors in safetensors files, checked before they reach a network, and model directories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dav2.failures import reason
from dav2.families.directory import WeightsError, read_json
from dav2.files import open_regular, write_whole, written_whole
from dav2.layout import CARD, CONFIG, WEIGHTS

FORMAT = "dav2"
State = dict[str, Tensor]
LISTED = 12
"""Names of parameters that a message lists of each kind."""


def write_directory(
    path: Path,
    model: nn.Module,
    family: str,
    settings: Mapping[str, object],
    predicts: str,
    card: str = "",
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Write a model directory: ``model.safetensors`` (float32), ``config.json`` and ``card.md``.

    Args:
        path: the directory; made if it is not there, its three files replaced if it is.
        settings: what it takes to build the model again; in ``config.json``, and in the header of the weights, so that
            their digest tells models apart that differ in them alone.
        predicts: the unit of what it predicts, for people.
        card: Markdown: what the model is, what it was trained on, its licence.
        extra: further JSON values for ``config.json`` under ``extra`` (parents, recipe …).

    Returns:
        ``path``. The weights are written last: a directory that has them is whole.
    """
    document = {"format": FORMAT, "family": family, **settings, "predicts": predicts}
    if extra:
        document["extra"] = dict(extra)
    write_whole(path / CARD, card)
    write_whole(path / CONFIG, json.dumps(document, indent=2) + "\n")
    state = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={FORMAT: json.dumps(dict(settings), sort_keys=True)})
    return path


def read_document(path: Path) -> dict[str, object]:
    """``config.json`` of a model directory.

    Raises:
        WeightsError: there is none, it is damaged, or it describes no model of dav2.
    """
    file = path / CONFIG
    try:
        document = read_json(file)
    except FileNotFoundError:
        raise WeightsError(f"{path} is not a model directory: it has no {CONFIG}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WeightsError(f'{file} does not describe a dav2 model (no "format": "{FORMAT}")')
    return document


def read_safetensors(file: Path) -> State:
    """Tensors of a safetensors file.

    Raises:
        WeightsError: the file is missing, no plain file, cut short or not in that format.
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


def fill(module: nn.Module, state: Mapping[str, Tensor], name: str, what: str = "its configuration") -> None:
    """Put ``state`` into ``module`` in float32, strictly; which parameters are trained stays as it is.

    Args:
        name: of the file, for messages.
        what: they are to fit, for messages.

    Raises:
        WeightsError: names or shapes do not fit, or a tensor is none of finite real numbers.
    """
    expected = module.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape)
    if missing or unexpected or wrong:
        shapes = [f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}" for key in wrong]
        kinds = {"missing": missing, "unexpected": unexpected, "wrong shape": shapes}
        lines = [f"  {kind}: {_some(names)}" for kind, names in kinds.items() if names]
        raise WeightsError("\n".join([f"{name} does not fit {what}:", *lines]))
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


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest


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
