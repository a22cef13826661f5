"""The encoder alone, from wherever its weights are."""

from __future__ import annotations

from pathlib import Path

from dav2.families.depth_anything.dinov2 import DinoV2
from dav2.families.depth_anything.foreign import encoder_state
from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.sizes import PATCH
from dav2.families.depth_anything.weights import assign, empty_model
from dav2.families.directory import WeightsError
from dav2.families.loading import load


def load_encoder(source: str | Path, size: str | None = None) -> DinoV2:
    """The encoder alone, in float32 on the CPU.

    Args:
        source: a DINOv2 hub file, a timm file (``.safetensors`` or ``.pth``), or anything that ``dav2.load`` takes.
        size: the size it must have, if that is known.

    Raises:
        WeightsError: there is no encoder there, or it is of another size.
    """
    path = Path(source)
    if path.is_file():
        state, found = encoder_state(path)
        model = empty_model(ModelConfig(found, None, PATCH))
        assign(model, state, str(path), model.encoder)
    else:
        model = load(source, "cpu", "fp32")
        if not isinstance(model, DepthAnything):
            raise WeightsError(f"{source} is of another family; an encoder comes from a Depth Anything or DINOv2 model")
        found = model.config.size
    if size is not None and found != size:
        raise WeightsError(f"{source} holds an encoder of size {found}, not {size}")
    return model.encoder.eval()
