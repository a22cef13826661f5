"""Exports predict what their source does, at free shapes, and a wrong one is not left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dav2.families.depth_anything.export import ExportError, check, export_onnx, export_torch
from dav2.families.depth_anything.model import DepthAnything, build


@pytest.fixture(scope="module")
def model() -> DepthAnything:
    torch.manual_seed(0)
    return build("vitn", 20.0).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_onnx_file_predicts_at_shapes_it_was_not_made_with(
    model: DepthAnything, dtype: torch.dtype, tmp_path: Path
) -> None:
    import onnxruntime

    path = tmp_path / "model.onnx"
    export_onnx(model, path, dtype)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in ((3, 3, 98, 126), (1, 3, 518, 518)):
        image = torch.randn(shape)
        with torch.inference_mode():
            expected = model(image)
        (depth,) = session.run(None, {"image": image.numpy()})
        assert (torch.from_numpy(depth) - expected).abs().max() < (1e-3 if dtype == torch.float32 else 0.03) * 20


def test_torch_program_predicts_at_free_shapes(model: DepthAnything, tmp_path: Path) -> None:
    export_torch(model, tmp_path / "model.pt2")
    program = torch.export.load(str(tmp_path / "model.pt2")).module()
    image = torch.randn(3, 3, 70, 182)
    with torch.inference_mode():
        assert torch.allclose(program(image), model(image), atol=1e-3)


def test_export_that_differs_is_refused(model: DepthAnything, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differs from its source"):
        check(model, lambda image: model(image) * 1.1, tmp_path / "model.onnx", 1e-3)
