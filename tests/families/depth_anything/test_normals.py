"""Depth Anything for surface normals: the model, its loss, its start, and a run from frames to scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dav2
from dav2 import families
from dav2.families.depth_anything import quantise
from dav2.families.depth_anything.dpt import last_layer
from dav2.families.depth_anything.export import ExportError, export_onnx
from dav2.families.depth_anything.foreign import save_hugging_face, save_official
from dav2.families.depth_anything.model import DepthAnything, ModelConfig, build
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.directory import WeightsError
from dav2.maps import Quantity
from tests.families.marigold.builders import photograph


@pytest.fixture(scope="module")
def model() -> DepthAnything:
    """Random weights, and a head that says something else at every pixel."""
    torch.manual_seed(0)
    made = build("vitn", target=Quantity.NORMALS).eval()
    with torch.no_grad():
        made.decoder.head3.weight.mul_(20)
    return made


def test_predictions_are_unit_vectors_at_the_resolution_of_the_photograph(model: DepthAnything) -> None:
    assert model.decoder.head3.weight.shape[0] == 3 and model.quantity is Quantity.NORMALS
    (maps,) = model.infer_maps([photograph(40, 52)], 56)
    assert maps.quantity is Quantity.NORMALS and maps.values.shape == (3, 40, 52) and maps.values.dtype == np.float32
    assert np.abs(np.linalg.norm(maps.values, axis=0) - 1).max() < 1e-6
    assert maps.values.std(axis=(1, 2)).max() > 0.01
    predictor = families.of_model(model).predictor(model)
    judged = predictor.predict(predictor.prepare(photograph(40, 52), 56 / model.config.input_size)[None])
    assert np.allclose(predictor.resized(judged[0], (40, 52)).detach().numpy(), maps.values, atol=1e-5)


def test_a_new_head_faces_the_viewer_and_no_vector_at_all_does_too() -> None:
    torch.manual_seed(1)
    fresh = build("vitn", target=Quantity.NORMALS).eval()
    normals = fresh.infer_image(photograph(28, 28), 28)
    assert normals[2].min() > 0.7
    nothing = fresh.activate(torch.zeros(1, 3, 2, 2))
    assert torch.equal(nothing[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_the_last_layer_gives_three_values_in_either_way() -> None:
    torch.manual_seed(2)
    layer, features = torch.nn.Conv2d(32, 3, 1), torch.rand(2, 32, 9, 11).bfloat16()
    with torch.inference_mode():
        slabs = last_layer(features, layer)
    assert slabs.shape == (2, 3, 9, 11)
    torch.testing.assert_close(slabs, last_layer(features, layer).detach(), atol=1e-5, rtol=1e-5)


def test_bfloat16_gives_nearly_the_same_directions(model: DepthAnything) -> None:
    image = torch.randn(1, 3, 42, 56)
    half = DepthAnything(model.config).eval()
    half.load_state_dict(model.state_dict())
    with torch.inference_mode():
        wanted, found = model(image), half.bfloat16()(image.bfloat16())
    assert found.dtype == torch.float32 and (found - wanted).abs().max() < 0.1


def test_its_directory_says_what_it_predicts(model: DepthAnything, tmp_path: Path) -> None:
    save_directory(model, tmp_path, "# card")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantity"] == config["predicts"] == "normals" and config["max_depth"] is None
    again = load_directory(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(each, model.state_dict()[name]) for name, each in again.state_dict().items())
    assert np.array_equal(
        dav2.load(tmp_path, "cpu", "fp32").infer_image(photograph(28, 42), 28),
        model.infer_image(photograph(28, 42), 28),
    )
    # A directory of depth whose description is changed has one channel where three are expected.
    save_directory(build("vitn"), tmp_path / "depth")
    described = json.loads((tmp_path / "depth" / "config.json").read_text())
    (tmp_path / "depth" / "config.json").write_text(json.dumps({**described, "quantity": "normals"}))
    with pytest.raises(WeightsError, match=r"decoder\.head3\.weight \(1, 32, 1, 1\) instead of \(3, 32, 1, 1\)"):
        load_directory(tmp_path / "depth")


@pytest.mark.parametrize(
    ("metres", "target", "said"),
    [(20.0, Quantity.NORMALS, "normals have no range in metres"), (None, Quantity.ALBEDO, "depth or normals, not")],
)
def test_what_no_head_predicts_is_refused(metres: float | None, target: Quantity, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig("vitn", metres, 518, target)


def test_an_onnx_file_gives_normals(model: DepthAnything, tmp_path: Path) -> None:
    import onnxruntime

    assert export_onnx(model, tmp_path / "normals.onnx") < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / "normals.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["normals"]
    image = torch.randn(2, 3, 70, 98)
    (found,) = session.run(None, {"image": image.numpy()})
    with torch.inference_mode():
        assert (torch.from_numpy(found) - model(image)).abs().max() < 1e-3


def test_forms_that_have_no_normals_are_refused(model: DepthAnything, tmp_path: Path) -> None:
    for save in (save_official, save_hugging_face):
        with pytest.raises(WeightsError, match="no other program has Depth Anything for normals"):
            save(model, tmp_path / "out")
    with pytest.raises(ExportError, match="judged by the order of depths"):
        quantise.export_int8(model, tmp_path / "int8.onnx", [photograph(28, 28)] * 8)
    assert not list(tmp_path.iterdir())
