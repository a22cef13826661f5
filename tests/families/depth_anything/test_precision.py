"""float32 means float32: TF32 is off wherever a model is loaded in it, exported or scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dav2
from dav2.evaluation.predictors import judged_model
from dav2.families.depth_anything.export import check
from dav2.families.depth_anything.family import DepthAnythingFamily
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.pseudo_label.receipts import LabelOptions
from dav2.pseudo_label.teacher import Teacher
from dav2.tf32 import allow_tf32


def switches() -> tuple[bool, bool]:
    """What torch itself would do, in products and in convolutions."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def tf32_is_on() -> Iterator[None]:
    before = allow_tf32(True)
    assert switches() == (True, True)
    yield
    allow_tf32(before)


def test_the_switch_tells_what_was_and_leaves_every_other_switch_readable() -> None:
    assert allow_tf32(False) is True and switches() == (False, False)
    assert allow_tf32(True) is False and switches() == (True, True)
    assert allow_tf32(False) is True
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.conv.fp32_precision != "tf32"  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["fp32", torch.float32])
def test_a_model_loaded_in_float32_multiplies_in_it(dtype: str | torch.dtype) -> None:
    dav2.load("vitn", "cpu", dtype)
    assert switches() == (False, False)


def test_a_model_loaded_in_bfloat16_leaves_the_switch_alone() -> None:
    dav2.load("vitn", "cpu", "bf16")
    assert switches() == (True, True)


def test_scores_exports_and_labels_are_float32(tmp_path: Path) -> None:
    model = build("vitn", None).eval()
    save_directory(model, tmp_path, "# card", {})
    judged_model(tmp_path, "cpu")
    assert switches() == (False, False)
    allow_tf32(True)
    check(model, model, tmp_path / "model.onnx", 1e-3)
    assert switches() == (False, False)
    allow_tf32(True)
    family, cpu = DepthAnythingFamily(), torch.device("cpu")
    Teacher(family.teaching(model, "bf16", cpu), "digest", LabelOptions(input_size=28, precision="bf16"))
    assert switches() == (True, True)
    Teacher(family.teaching(model, "fp32", cpu), "digest", LabelOptions(input_size=28, precision="fp32"))
    assert switches() == (False, False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_float32_is_as_exact_as_on_a_processor() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 126, 126)
    near = dav2.load("vitn", "cpu", "fp32")
    far = dav2.load("vitn", "cuda", "fp32")
    far.load_state_dict(near.state_dict())
    with torch.inference_mode():
        expected, got = near(image), far(image.cuda()).cpu()
    assert (got - expected).abs().max() < 2e-5 * expected.abs().max()
