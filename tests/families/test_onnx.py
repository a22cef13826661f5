"""ONNX files of others: taken in, judged and labelling as they predict elsewhere; refused by name where they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import dav2
from dav2 import families, layout
from dav2.families.depth_anything.export import export_onnx
from dav2.families.depth_anything.model import build
from dav2.families.directory import WeightsError, weights_digest
from dav2.families.outside import take_in
from dav2.maps import Quantity
from dav2.params import OutsideParams
from dav2.pseudo_label import LabelOptions
from dav2.pseudo_label.receipts import LabelError
from dav2.pseudo_label.teacher import Teacher

OPTIONS = LabelOptions(input_size=28, flip_agreement=True, scale_agreement=True)


def network(path: Path, shape: list[Any], **changes: Any) -> Path:
    """An ONNX file whose map is the mean colour, in the form that ``changes`` says."""
    kind = changes.get("kind", TensorProto.FLOAT)
    operator = changes.get("operator", "ReduceMean")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    keep = changes.get("keep", 0)
    nodes = [helper.make_node(operator, ["image", "axes"], ["map"], keepdims=keep)]
    out = [shape[0], 1, *shape[2:]] if keep else [shape[0], *shape[2:]]
    outputs = [helper.make_tensor_value_info("map", kind, out)]
    inputs = [helper.make_tensor_value_info("image", kind, shape)]
    if changes.get("second_output"):
        nodes.append(helper.make_node("Identity", ["image"], ["copy"]))
        outputs.append(helper.make_tensor_value_info("copy", kind, shape))
    if changes.get("second_input"):
        inputs.append(helper.make_tensor_value_info("more", kind, shape))
    graph = helper.make_graph(nodes, "mean", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path))
    return path


def described(file: Path, **values: Any) -> OutsideParams:
    return OutsideParams.model_validate({"onnx": str(file), "quantity": "disparity", "size": 28, **values})


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def test_a_network_predicts_here_what_it_predicts_in_onnx_runtime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = build("vitn").eval()
    export_onnx(source, tmp_path / "net.onnx")
    origin = take_in("net", described(tmp_path / "net.onnx", licence="MIT"), tmp_path)
    assert (origin.family, origin.quantity, origin.licence) == ("onnx", "disparity", "MIT")
    folder = layout.outside(tmp_path, "net")
    model = dav2.load(folder)
    rgb = photograph(60, 90)
    small = cv2.resize(rgb, (42, 28), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    plane = ((small - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": plane})
    predictor = families.of_model(model).predictor(model)
    got = predictor.predict(predictor.prepare(rgb)[None])
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert model.infer_image(rgb).shape == (60, 90)
    teacher = Teacher.open(str(folder), OPTIONS)
    label = teacher(torch.from_numpy(plane), ["a"])
    np.testing.assert_allclose(label.disparity.numpy(), expected, atol=1e-5)
    assert label.flipped is not None and label.rescaled is not None and label.embedding is None
    assert label.rescaled.shape == label.disparity.shape


def test_metres_become_disparity_and_relative_depth_nearness(tmp_path: Path) -> None:
    file = network(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    batch = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) + 0.5
    mean = batch.mean(1)
    for quantity, expected in {
        "disparity": mean,
        "metres": 1 / mean,
        "depth": mean.amax((1, 2), keepdim=True) - mean,
        "log_depth": mean.amax((1, 2), keepdim=True) - mean,
    }.items():
        take_in("net", described(file, quantity=quantity), tmp_path)
        labels = Teacher.open(str(layout.outside(tmp_path, "net")), OPTIONS)(batch, ["a", "b"]).disparity
        torch.testing.assert_close(labels, expected)


@pytest.mark.parametrize(
    ("shape", "kind", "keep"),
    [
        ([1, 3, 28, 42], TensorProto.FLOAT, 0),
        ([1, 3, 28, 42], TensorProto.FLOAT16, 1),
        (["n", 3, "h", "w"], TensorProto.FLOAT16, 0),
        (["n", 3, 56, "w"], TensorProto.FLOAT, 1),
    ],
)
def test_fixed_shapes_half_precision_and_a_channel_of_its_own_are_taken(
    tmp_path: Path, shape: list[Any], kind: int, keep: int
) -> None:
    file = network(tmp_path / "net.onnx", shape, kind=kind, keep=keep)
    take_in("net", described(file, mean=[0, 0, 0], std=[1, 1, 1]), tmp_path)
    model = dav2.load(layout.outside(tmp_path, "net"))
    images = [photograph(60, 90), photograph(60, 90)]
    tall = shape[2] if isinstance(shape[2], int) else 28
    assert model.network_shape(60, 90)[0] == tall
    batch = torch.stack([torch.from_numpy(model.prepare(rgb)) for rgb in images])
    assert model(batch).shape == (2, *batch.shape[2:])
    torch.testing.assert_close(model(batch), batch.mean(1), atol=2e-3, rtol=0)


def external(path: Path) -> Path:
    big = numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), "bias")
    graph = helper.make_graph(
        [helper.make_node("Add", ["image", "bias"], ["map"])],
        "add",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [big],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(path), save_as_external_data=True, size_threshold=0, location="weights.bin")
    return path


DYNAMIC = ["n", 3, "h", "w"]


@pytest.mark.parametrize(
    ("make", "values", "said"),
    [
        (lambda p: p, {}, r"net\.onnx: no such file"),
        (lambda p: (p.write_bytes(b"\x08\x07not a network"), p)[1], {}, "it is not a whole ONNX file"),
        (lambda p: network(p, DYNAMIC, second_output=True), {}, "several outputs; say with 'output' .*: map, copy"),
        (lambda p: network(p, DYNAMIC), {"output": "depth"}, "no output 'depth'; there are: map"),
        (lambda p: network(p, DYNAMIC, second_input=True), {}, r"takes 2 inputs \(image, more\)"),
        (lambda p: network(p, DYNAMIC), {"size": None}, "takes any size; say with 'size'"),
        (lambda p: network(p, ["n", 1, "h", "w"]), {}, r"expected \(batch, 3, height, width\)"),
        (
            lambda p: network(p, DYNAMIC, operator="NoSuchOperator"),
            {},
            "needs the operator 'NoSuchOperator', which",
        ),
        (lambda p: network(p, ["n", "h", "w", 3]), {}, "channels last; expected"),
        (lambda p: network(p, [1, 3, 56, 84]), {"size": 28}, r"made for 56 × 84 alone; leave 'size' \(28\) out"),
        (
            lambda p: network(p, DYNAMIC, second_output=True),
            {"output": "copy"},
            r"the output 'copy' has the shape \(1, 3, 28, \d+\), not one map",
        ),
        (external, {}, "keeps weights in other files"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, make: Callable[[Path], Path], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(WeightsError, match=said):
        take_in("net", described(make(tmp_path / "net.onnx"), **values), tmp_path)
    assert not layout.outside(tmp_path, "net").exists()


def test_a_network_without_features_gives_no_embedding(tmp_path: Path) -> None:
    take_in("net", described(network(tmp_path / "net.onnx", DYNAMIC)), tmp_path)
    with pytest.raises(LabelError, match=r"no features .*; set pseudo_label\.embedding: false"):
        Teacher.open(str(layout.outside(tmp_path, "net")), LabelOptions(input_size=28, embedding=True))


def test_how_a_network_is_used_is_part_of_its_digest(tmp_path: Path) -> None:
    file = network(tmp_path / "net.onnx", DYNAMIC)
    digests = set()
    for values in ({}, {"quantity": "metres"}, {"size": 56}, {"mean": [0, 0, 0]}, {"licence": "MIT"}):
        origin = take_in("net", described(file, **values), tmp_path)
        assert origin.weights_sha256 == weights_digest(layout.outside(tmp_path, "net"))
        digests.add(origin.weights_sha256)
    # Its licence is no part of what it predicts.
    assert len(digests) == 4
    assert dav2.load(layout.outside(tmp_path, "net")).quantity is Quantity.DISPARITY
