"""The same weights give the same depth as in ``transformers``.

``transformers`` resizes the positional embedding by another rule than the original code, which we follow. At 518 × 518
neither resizes; elsewhere the two are compared with a table that is the same everywhere, on which any rule agrees.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dav2.families.depth_anything.foreign import save_hugging_face
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.loading import load

CASES = [
    ("vits", None, (518, 518)),
    ("vits", 80.0, (196, 266)),
    ("vitb", 20.0, (182, 126)),
]


def lively(model: DepthAnything) -> DepthAnything:
    """Random weights large enough that every layer matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
        model.decoder.head3.bias.fill_(0.3)
    return model.eval()


@pytest.mark.parametrize(("size", "max_depth", "shape"), CASES)
def test_prediction_equals_that_of_transformers(
    size: str, max_depth: float | None, shape: tuple[int, int], tmp_path: Path
) -> None:
    from transformers import DepthAnythingForDepthEstimation

    model = lively(build(size, max_depth))
    if shape != (518, 518):
        with torch.no_grad():
            model.encoder.pos_embed[:, 1:] = model.encoder.pos_embed[:, 1:2]
    save_hugging_face(model, tmp_path)
    reference = DepthAnythingForDepthEstimation.from_pretrained(tmp_path).eval()
    image = torch.randn(1, 3, *shape)
    with torch.inference_mode():
        theirs: Tensor = reference(image).predicted_depth
        ours = model(image)
        again = load(tmp_path, "cpu", torch.float32)(image)
    assert theirs.std() > 1e-3 * theirs.mean()
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference <= 2e-6
    assert torch.equal(ours, again)


def test_bfloat16_prediction_is_float32_and_close() -> None:
    model = lively(build("vits"))
    image = torch.randn(1, 3, 140, 182)
    with torch.inference_mode():
        exact = model(image)
        rounded = model.to(torch.bfloat16)(image.to(torch.bfloat16))
    assert rounded.dtype == torch.float32
    assert len(rounded.unique()) > 2000, "a bfloat16 last layer would leave a few hundred values"
    assert (rounded - exact).abs().max() <= 0.03 * exact.abs().max()
