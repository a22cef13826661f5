"""Model directories of this family, and the folders of diffusers' Marigold and Stable Diffusion.

A model directory holds three files like any other: all weights in ``model.safetensors``, the configurations of
network, codec and schedule in ``config.json``. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from dav2 import families
from dav2.failures import reason
from dav2.families.directory import WeightsError, number
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.config import How, MarigoldConfig
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.refiner import Refiner
from dav2.families.weights import fill, read_document, read_safetensors, write_directory
from dav2.layout import CONFIG, WEIGHTS
from dav2.maps import Quantity

FAMILY = "marigold"


def save_directory(model: Marigold, path: Path, card: str = "", extra: dict[str, object] | None = None) -> Path:
    """Write ``model`` as a model directory, weights last: a directory that has them is whole."""
    return write_directory(path, model, FAMILY, config_json(model), model.quantity.unit, card, extra)


def config_json(model: Marigold) -> dict[str, Any]:
    """What it takes to build the model again."""
    config = model.config
    guide = {"guide": _guide_json(model.guide)} if isinstance(model, Refiner) else {}
    return {
        **guide,
        "size": config.size,
        "quantity": config.quantity.value,
        **({"layers": [each.value for each in config.layers]} if config.layers else {}),
        **({"gamma_coded": [each.value for each in config.gamma_coded]} if config.gamma_coded else {}),
        "input_size": config.input_size,
        "steps": config.how.steps,
        "ensemble": config.how.ensemble,
        "begins": config.begins,
        "adapted": config.adapted,
        "tokens": list(model.prompt.shape[1:]),
        "unet": codecs.plain(model.unet.config),
        "codec": codecs.described(model.codec),
        "scheduler": dict(model.scheduler),
    }


def load_directory(path: Path) -> Marigold:
    """Read a model directory into a model on the CPU, in evaluation mode, float32.

    Raises:
        WeightsError: a file is missing or damaged, or weights and configuration do not fit together.
    """
    file, document = path / CONFIG, read_document(path)
    try:
        model = empty_model(document)
    except KeyError as error:
        raise WeightsError(f"{file} lacks the key {error}") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"{file}: {reason(error)}") from None
    assign(model, read_safetensors(path / WEIGHTS), str(path / WEIGHTS))
    return model


def empty_model(document: Mapping[str, Any]) -> Marigold:
    """A model of that configuration whose weights mean nothing yet; the network lies on the meta device."""
    how = How(int(number(document["steps"], "steps")), int(number(document["ensemble"], "ensemble")))
    if document["begins"] not in ("noise", "zeros"):
        raise ValueError(f"begins must be noise or zeros, not {document['begins']!r}")
    config = MarigoldConfig(
        size=str(document["size"]),
        quantity=Quantity(document["quantity"]),
        input_size=int(number(document["input_size"], "input_size")),
        how=how,
        begins=document["begins"],
        adapted=bool(document["adapted"]),
        layers=tuple(Quantity(each) for each in document.get("layers", ())),
        gamma_coded=tuple(Quantity(each) for each in document.get("gamma_coded", ())),
    )
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(document["unet"]))
        prompt = torch.empty(1, *(int(number(each, "tokens")) for each in document["tokens"]))
        codec = codecs.built(document["codec"])
    parts = (unet, codec, dict(document["scheduler"]), prompt, config)
    if "guide" not in document:
        return Marigold(*parts).eval()
    return Refiner(*parts, _empty_guide(document["guide"])).eval()


def _guide_json(guide: Any) -> dict[str, Any]:
    """The model that a refiner refines, without its weights, which lie among the refiner's own."""
    return {"family": guide.family, **families.get(guide.family).described(guide)}


def _empty_guide(document: object) -> object:
    if not isinstance(document, dict) or not isinstance(document.get("family"), str):
        raise ValueError("guide must describe a model, its family among the rest")
    try:
        return families.get(document["family"]).empty(document)
    except families.UnknownFamily as error:
        raise ValueError(f"guide: {error}") from None


def assign(model: Marigold, state: Mapping[str, Tensor], name: str) -> None:
    """Put ``state`` into ``model``, strictly.

    Raises:
        WeightsError: names or shapes do not fit, or a value is not finite.
    """
    fill(model, state, name)
    model.codec.requires_grad_(False)
