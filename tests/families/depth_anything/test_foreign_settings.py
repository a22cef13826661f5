"""Model directories and files from elsewhere are taken for what they are, or refused by key; nothing is ignored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dav2.families.depth_anything.foreign import load_hugging_face, load_official, save_hugging_face, save_official
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.families.directory import WeightsError
from dav2.families.loading import load


@pytest.fixture(scope="module")
def model() -> DepthAnything:
    torch.manual_seed(0)
    return build("vitn")


def changed(file: Path, settings: dict[str, Any]) -> None:
    document = json.loads(file.read_text())
    for key, value in settings.items():
        *path, last = key.split(".")
        place = document
        for part in path:
            place = place[part]
        place[last] = value
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone_config.out_indices", [1, 2, 3, 4]),
        ("backbone_config.patch_size", 16),
        ("backbone_config.num_attention_heads", 4),
        ("backbone_config.layer_norm_eps", 1e-5),
        ("backbone_config.hidden_act", "relu"),
        ("backbone_config.apply_layernorm", False),
        ("backbone_config", [1]),
        ("patch_size", 7),
        ("reassemble_factors", [8, 4, 2, 1]),
        ("head_in_index", 1),
        ("depth_estimation_type", "other"),
    ],
)
def test_another_network_in_a_hugging_face_folder_is_refused_by_key(
    model: DepthAnything, tmp_path: Path, key: str, value: Any
) -> None:
    save_hugging_face(model, tmp_path)
    load_hugging_face(tmp_path)
    changed(tmp_path / "config.json", {key: value})
    with pytest.raises(WeightsError, match=key.rpartition(".")[2]):
        load_hugging_face(tmp_path)


RANGE = "max_depth|a whole number of more than 19 digits"


@pytest.mark.parametrize("value", [[1], "20", float("inf"), 10**400, True, -3])
def test_a_range_that_is_none_is_refused(model: DepthAnything, tmp_path: Path, value: Any) -> None:
    save_hugging_face(model, tmp_path / "theirs")
    changed(tmp_path / "theirs/config.json", {"max_depth": value, "depth_estimation_type": "metric"})
    with pytest.raises(WeightsError, match=RANGE):
        load_hugging_face(tmp_path / "theirs")
    save_directory(model, tmp_path / "ours")
    changed(tmp_path / "ours/config.json", {"max_depth": value})
    with pytest.raises(WeightsError, match=RANGE):
        load_directory(tmp_path / "ours")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_mean", [0.5, 0.5, 0.5]),
        ("image_std", [0.5, 0.5, 0.5]),
        ("do_normalize", False),
        ("rescale_factor", 1),
        ("ensure_multiple_of", 32),
        ("keep_aspect_ratio", False),
        ("size", {"height": 392, "width": 518}),
    ],
)
def test_images_prepared_in_another_way_are_refused_by_key(
    model: DepthAnything, tmp_path: Path, key: str, value: Any
) -> None:
    save_hugging_face(model, tmp_path)
    changed(tmp_path / "preprocessor_config.json", {key: value})
    with pytest.raises(WeightsError, match=key):
        load_hugging_face(tmp_path)


def test_the_input_size_of_a_preprocessor_is_taken(model: DepthAnything, tmp_path: Path) -> None:
    save_hugging_face(model, tmp_path)
    changed(tmp_path / "preprocessor_config.json", {"size": {"height": 392, "width": 392}})
    assert load_hugging_face(tmp_path).config.input_size == 392
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_hugging_face(tmp_path).config.input_size == model.config.input_size


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("pos_embed", lambda t: torch.tensor(1.0), "shape"),
        ("pos_embed", lambda t: t.to_sparse(), "sparse"),
        ("pos_embed", lambda t: t.to("meta"), "meta"),
        ("cls_token", lambda t: t + 1j, "complex64"),
        ("cls_token", lambda t: t.long(), "int64"),
        ("blocks.x.foo", lambda t: torch.zeros(1), "unexpected"),
    ],
)
def test_tensors_of_unusual_kinds_are_refused_by_name(
    model: DepthAnything, tmp_path: Path, name: str, make: Any, words: str
) -> None:
    save_official(model, tmp_path / "a.pth")
    state = torch.load(tmp_path / "a.pth")
    key = f"pretrained.{name}"
    state[key] = make(state.get(key, torch.zeros(1)))
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=words):
        load_official(tmp_path / "a.pth")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "nested", "empty", "zeros"])
def test_files_of_a_model_directory_that_are_none_are_named(
    model: DepthAnything, tmp_path: Path, file: str, kind: str
) -> None:
    save_directory(model, tmp_path)
    path = tmp_path / file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes({"nested": b"[" * 200_000, "empty": b"", "zeros": bytes(100)}[kind])
    with pytest.raises(WeightsError, match=file.replace(".", r"\.")):
        load(tmp_path)


@pytest.mark.parametrize("settings", [{"input_size": 1_400_000_000}, {"input_size": 28.0}, {"size": ["vitn"]}])
def test_settings_of_another_type_or_beyond_any_memory_are_named(
    model: DepthAnything, tmp_path: Path, settings: dict[str, Any]
) -> None:
    save_directory(model, tmp_path)
    changed(tmp_path / "config.json", settings)
    with pytest.raises(WeightsError, match=r"config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("source", ["a" * 300, "x\0y", "/dev/zero", "models:/"])
def test_what_is_no_model_is_said(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError):
        load(source)
