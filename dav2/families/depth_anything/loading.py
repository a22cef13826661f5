"""The encoder alone, from wherever its weights are."""

from __future__ import annotations

from pathlib import Path

from dav2.families.depth_anything.dinov3_files import is_dinov3_folder
from dav2.families.depth_anything.encoder import Encoder
from dav2.families.depth_anything.foreign import encoder_state
from dav2.families.depth_anything.model import DepthAnything, ModelConfig
from dav2.families.depth_anything.sizes import get_size
from dav2.families.depth_anything.weights import assign, empty_model
from dav2.families.directory import WeightsError
from dav2.families.loading import load


def load_encoder(source: str | Path) -> tuple[Encoder, str]:
    """The encoder alone, in float32 on the CPU, and the name of its size.

    Args:
        source: a DINOv2 or DINOv3 file of the original hubs or of timm (``.safetensors`` or ``.pth``), a folder of
            ``transformers`` or timm that holds DINOv3, or anything that ``dav2.load`` takes.

    Raises:
        WeightsError: there is no encoder there.
    """
    path = Path(source)
    if path.is_file() or is_dinov3_folder(path):
        state, found = encoder_state(path)
        model = empty_model(ModelConfig(found, None, get_size(found).input_size))
        assign(model, state, str(path), model.encoder)
    else:
        model = load(source, "cpu", "fp32")
        if not isinstance(model, DepthAnything):
            raise WeightsError(f"{source} is of another family; an encoder comes from a Depth Anything or DINO model")
        found = model.config.size
    return model.encoder.eval(), found
