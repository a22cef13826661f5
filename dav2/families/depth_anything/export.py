"""A model as one file for other runtimes: ONNX (float32 or float16) and ``torch.export``.

Batch, height and width stay free, the sides being multiples of the patch size. A file takes its name only after it has
given the source model's predictions at three shapes; what fails that check is never left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dav2.families.depth_anything.model import DepthAnything
from dav2.files import written_whole
from dav2.tf32 import allow_tf32

TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2}
"""Largest difference from the source model's prediction, relative to its largest value, by the file's precision."""
ONNX_LIMIT = 2_000_000_000
"""An ONNX file is one protocol buffer, which cannot hold more bytes."""

Runner = Callable[[Tensor], Tensor]


class ExportError(RuntimeError):
    """An export that was not made, because it cannot be or because it does not predict what its source does."""


class _Exported(nn.Module):
    """Takes and gives float32 whatever the precision in between."""

    def __init__(self, model: DepthAnything, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image.to(self.dtype)).float()


def export_onnx(model: DepthAnything, path: Path, dtype: torch.dtype = torch.float32) -> float:
    """Write an ONNX file with the input ``image`` (B, 3, H, W) and the output ``depth`` (B, H, W), both float32.

    A model of normals gives ``normals`` (B, 3, H, W) instead.

    Args:
        model: float32, on the CPU, in evaluation mode.
        dtype: precision of weights and arithmetic in the file: float32 or float16.

    Returns:
        the largest relative difference seen in the check.

    Raises:
        ExportError: the file would be too large, or predicts something else than ``model``.
    """
    wrapped = _wrapped(model, dtype)
    size = sum(parameter.numel() * parameter.element_size() for parameter in wrapped.parameters())
    if size > ONNX_LIMIT:
        raise ExportError(f"{path}: {size / 1e9:.1f} GB of weights do not fit an ONNX file; export for torch instead")
    with torch.no_grad():
        program = torch.onnx.export(
            wrapped,
            (_example(model.config.patch),),
            input_names=["image"],
            output_names=[output_name(model)],
            dynamic_shapes=_free_shapes(model.config.patch),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ExportError(f"{path}: the model could not be translated to ONNX")
    with written_whole(path) as temporary:
        program.save(str(temporary), external_data=False)
        return check(model, _onnx_runner(temporary, output_name(model)), path, TOLERANCE[dtype])


def output_name(model: DepthAnything) -> str:
    """What the output of an ONNX file is called."""
    return "depth" if model.quantity.is_depth else model.quantity.value


def export_torch(model: DepthAnything, path: Path) -> float:
    """Write a ``torch.export`` program (``.pt2``) that takes ``image`` (B, 3, H, W); as :func:`export_onnx`."""
    wrapped = _wrapped(model, torch.float32)
    with torch.no_grad():
        patch = model.config.patch
        program = torch.export.export(wrapped, (_example(patch),), dynamic_shapes=_free_shapes(patch))
    with written_whole(path) as temporary:
        # Given a name, PyTorch writes it into the file, and refuses some.
        with temporary.open("wb") as file:
            torch.export.save(program, file)
        with temporary.open("rb") as file:
            loaded = torch.export.load(file).module()
        return check(model, loaded, path, TOLERANCE[torch.float32])


def check(model: DepthAnything, exported: Runner, path: Path, tolerance: float) -> float:
    """Compare ``exported`` with ``model`` at three shapes: the native square, a wide batch of two, a small upright.

    Returns:
        the largest absolute difference relative to the largest value of the source's prediction.

    Raises:
        ExportError: it is above ``tolerance``, or a value is not finite.
    """
    allow_tf32(False)
    native, patch = model.config.input_size, model.config.patch
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, height, width in ((1, native, native), (2, 5 * patch, 8 * patch), (1, 9 * patch, 4 * patch)):
        image = torch.randn(batch, 3, height, width, generator=generator)
        with torch.inference_mode():
            expected = model(image)
            got = exported(image)
        if got.shape != expected.shape or not torch.isfinite(got).all():
            raise ExportError(f"{path}: at {height} × {width} the export gives {tuple(got.shape)} or values not finite")
        worst = max(worst, float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-6)))
    if worst > tolerance:
        raise ExportError(f"{path}: the export differs from its source by {worst:.2g} of the range (> {tolerance:g})")
    return worst


def _wrapped(model: DepthAnything, dtype: torch.dtype) -> _Exported:
    copy = DepthAnything(model.config)
    copy.load_state_dict(model.state_dict())
    return _Exported(copy.eval().requires_grad_(False).to(dtype), dtype).eval()


def _example(patch: int) -> Tensor:
    # No two sides alike and none the native one: equal sizes would be taken for one and the same.
    return torch.zeros(2, 3, 6 * patch, 9 * patch)


def _free_shapes(patch: int) -> dict[str, object]:
    dim = torch.export.Dim
    return {"image": {0: dim("batch", max=1024), 2: patch * dim("rows", max=512), 3: patch * dim("columns", max=512)}}


def _onnx_runner(path: Path, output: str) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run([output], {"image": image.numpy()})[0]))

    return run
