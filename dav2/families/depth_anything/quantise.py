"""ONNX in 8 bits: weights and activations as integers, their ranges measured on photographs.

Where a processor multiplies small integers faster than float32 this is the smallest and fastest file. It loses
accuracy, so it is judged before it takes its name: on photographs that the ranges were not measured on, it has to order
the depth of pairs of points as its source does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dav2.families.depth_anything.export import ExportError, export_onnx
from dav2.families.depth_anything.model import DepthAnything
from dav2.families.depth_anything.preprocess import preprocess
from dav2.files import written_whole

LEAST_AGREEMENT = 0.97
"""Share of point pairs that the file has to order as its source does."""
CLEAR = 0.02
"""Pairs that the source itself holds for nearer apart than this share of a photograph's range are not counted."""
PAIRS = 2000
HELD_OUT = 4
"""Every fourth photograph judges, the others measure."""
LEAST_PHOTOGRAPHS = 8

Image = NDArray[np.uint8]


def export_int8(model: DepthAnything, path: Path, photographs: Sequence[Image]) -> str:
    """Write an ONNX file with 8-bit weights and activations; input and output are float32 as in the others.

    Args:
        model: float32, on the CPU, in evaluation mode.
        photographs: uint8 (H, W, 3), at least 8, of the kind that the file will see; every fourth judges it.

    Returns:
        what it keeps of the source's ordering, as a sentence.

    Raises:
        ExportError: too few photographs, the file orders too many pairs otherwise than ``model``, or ``model`` does not
            say how far things are.
    """
    if not model.quantity.is_depth:
        raise ExportError(
            f"{path}: 8 bits are judged by the order of depths, and this model predicts {model.quantity.unit}; export "
            "it as onnx, onnx-fp16 or torch"
        )
    if len(photographs) < LEAST_PHOTOGRAPHS:
        raise ExportError(
            f"{path}: {len(photographs)} photographs are too few to measure ranges on; give {LEAST_PHOTOGRAPHS} or more"
        )
    size = model.config.input_size
    planes = [preprocess(rgb, size, model.config.patch)[None] for rgb in photographs]
    judges, measured = planes[::HELD_OUT], [p for n, p in enumerate(planes) if n % HELD_OUT]
    with tempfile.TemporaryDirectory() as folder, written_whole(path) as temporary:
        plain = Path(folder) / "fp32.onnx"
        export_onnx(model, plain)
        _quantise(plain, temporary, measured)
        kept, error = _judge(model, temporary, judges)
        _accept(path, kept)
    return f"{100 * kept:.1f} % of pairs ordered as by the source, mean difference {100 * error:.2f} % of the range"


def _accept(path: Path, kept: float) -> None:
    if kept < LEAST_AGREEMENT:
        raise ExportError(
            f"{path}: 8 bits order {100 * kept:.1f} % of pairs as the source does, {100 * LEAST_AGREEMENT:.0f} % are "
            "needed. Keep float32 or float16, or give photographs more like those that it will see"
        )


def _quantise(plain: Path, path: Path, planes: Sequence[NDArray[np.float32]]) -> None:
    """Static quantisation by ONNX Runtime: products alone, weights by channel, ranges as they were seen."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_name("prepared.onnx")
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(path),
        _Planes(planes),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True, "MatMulConstBOnly": True},
    )


class _Planes:
    """Photographs one after another, as ONNX Runtime asks for them."""

    def __init__(self, planes: Sequence[NDArray[np.float32]]) -> None:
        self._planes: Iterator[NDArray[np.float32]] = iter(planes)

    def get_next(self) -> dict[str, object] | None:
        plane = next(self._planes, None)
        return None if plane is None else {"image": plane}


def _judge(model: DepthAnything, path: Path, planes: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Share of clear pairs that the file orders as ``model`` does, and its mean difference relative to the range."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    same, counted, errors = 0, 0, []
    for plane in planes:
        with torch.inference_mode():
            expected = model(torch.from_numpy(plane))[0].numpy().ravel()
        got = session.run(["depth"], {"image": plane})[0].ravel()
        one, two = random.integers(0, expected.size, (2, PAIRS))
        spread = float(np.ptp(expected)) or 1.0
        clear = abs(expected[one] - expected[two]) > CLEAR * spread
        same += int(((expected[one] > expected[two]) == (got[one] > got[two]))[clear].sum())
        counted += int(clear.sum())
        errors.append(float(abs(got - expected).mean()) / spread)
    return (same / counted if counted else 1.0), float(np.mean(errors))
