"""``dav2.load``: a model from wherever its weights are."""

from __future__ import annotations

from pathlib import Path

import torch

from dav2.models.depth_anything import DepthAnything, build
from dav2.models.sizes import SIZES
from dav2.models.weights import load_directory


def load(
    source: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> DepthAnything:
    """A model in evaluation mode, ready for ``infer_image``.

    Args:
        source: a size (random weights) or a model directory.
        device: where it runs; ``None`` takes the first of CUDA, MPS, CPU that is there.
        dtype: precision of inference; ``None`` takes bfloat16 where the device computes in it, float32 elsewhere.
    """
    model = build(str(source)).eval() if str(source) in SIZES else load_directory(Path(source))
    return model.to(device or "cpu")
