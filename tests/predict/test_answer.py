"""``dav2.infer`` and what a person sees of models and answers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import dav2
from dav2.data.frame import FrameError
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.families.directory import WeightsError

RGB = np.random.default_rng(3).integers(0, 255, (50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_directory(build("vitn"), tmp_path_factory.mktemp("model"))


def test_a_file_an_image_and_an_array_give_the_same_depth(model: Path, tmp_path: Path) -> None:
    expected = dav2.load(model).infer_image(RGB)
    cv2.imwrite(str(tmp_path / "photo.png"), RGB[..., ::-1])
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    for image in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(RGB), RGB, opaque):
        answer = dav2.infer(image, model)
        assert np.array_equal(answer.values, expected) and np.array_equal(answer.rgb, RGB)
    grey = dav2.infer(RGB[..., 0], dav2.load(model))
    assert np.array_equal(grey.rgb, np.dstack([RGB[..., 0]] * 3))


def test_an_answer_shows_itself_and_can_be_saved(model: Path, tmp_path: Path) -> None:
    answer = dav2.infer(RGB, model)
    assert repr(answer).startswith("<depth of 70 × 50 pixels: relative disparity")
    assert "data:image/jpeg;base64," in answer._repr_html_()
    assert answer.picture().size == (70, 50)
    assert [path.name for path in answer.save(tmp_path / "room", "npy", "color")] == [
        "room_depth.npy",
        "room_color.png",
    ]
    assert np.array_equal(np.load(tmp_path / "room_depth.npy"), answer.values)


def test_models_and_the_package_say_what_they_are(model: Path) -> None:
    assert repr(dav2.load(model, "cpu", "fp32")) == (
        f"<depth_anything vitn: relative disparity, {sum(p.numel() for p in build('vitn').parameters()) / 1e6:.1f} M "
        "parameters, float32 on cpu>"
    )
    assert {"infer", "load", "__version__"} <= set(dir(dav2)) and dav2.__version__[0].isdigit()
    assert (Path(dav2.__file__).parent / "py.typed").is_file()


def test_what_is_no_image_or_no_model_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"float64 \(4, 4\): give uint8"):
        dav2.infer(np.zeros((4, 4)), model)
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(FrameError, match=r"notes\.jpg"):
        dav2.infer(tmp_path / "notes.jpg", model)
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg"):
        dav2.infer(tmp_path / "nothing.jpg", model)
    with pytest.raises(WeightsError, match="nowhere"):
        dav2.infer(RGB, tmp_path / "nowhere")
