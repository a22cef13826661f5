"""The model against diffusers' own pipeline, its directory, and its surgery."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MarigoldDepthPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

import dav2
from dav2.families.directory import WeightsError, weights_digest
from dav2.families.marigold import codec as codecs
from dav2.families.marigold import surgery
from dav2.families.marigold.config import How
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.official import EMPTY_TEXT, load_pipeline, save_pipeline
from dav2.families.marigold.sizes import random_network
from dav2.families.marigold.weights import load_directory, save_directory
from dav2.maps import Quantity
from dav2.params import ProcessParams
from tests.families.marigold.builders import model, patch_codec, photograph, small_vae

V10 = ProcessParams(zero_snr=False, spacing="leading")


def pipeline_of(marigold: Marigold, codec: Any = None) -> MarigoldDepthPipeline:
    pipe = MarigoldDepthPipeline(
        marigold.unet, codec or marigold.codec, DDIMScheduler.from_config(marigold.scheduler), None, None,
        prediction_type="depth", scale_invariant=True, shift_invariant=True,
    )  # fmt: skip
    pipe.empty_text_embedding = marigold.prompt
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(("process", "steps"), [(ProcessParams(), 1), (ProcessParams(), 4), (V10, 10)])
@pytest.mark.parametrize("codec", ["vae", "patch"])
def test_maps_are_those_of_diffusers_pipeline(codec: str, process: ProcessParams, steps: int) -> None:
    made = small_vae() if codec == "vae" else patch_codec()
    marigold, rgb = model(made, process), photograph(60, 84)
    latents = marigold.starts(marigold.network_shape(60, 84), How(seed=5))
    theirs = pipeline_of(marigold)(Image.fromarray(rgb), steps, 1, 64, latents=latents).prediction[0, ..., 0]
    ours = marigold.infer_image(rgb, steps=steps, seed=5)
    assert ours.shape == (60, 84) and float(ours.std()) > 1e-3
    assert np.abs(ours - theirs).max() < 1e-5


def test_members_and_native_resolution_are_those_of_diffusers_pipeline() -> None:
    marigold, rgb = model(), photograph(52, 44)
    latents = marigold.starts(marigold.network_shape(52, 44, 0), How(ensemble=3, seed=1))
    pipe = pipeline_of(marigold)
    shown = [pipe(Image.fromarray(rgb), 2, 1, 0, latents=latents[n : n + 1]).prediction[0, ..., 0] for n in range(3)]
    from dav2.families.marigold.resolution import to_network

    found = marigold.members(to_network(rgb, 0, 8), latents, 2)[0, :, :52, :44]
    assert np.abs(found.detach().numpy() - np.stack(shown)).max() < 1e-5
    maps = marigold.infer_maps([rgb], 0, steps=2, ensemble=3, seed=1)[0]
    assert maps.uncertainty is not None and maps.uncertainty.shape == (52, 44) and maps.values.max() <= 1
    assert marigold.infer_maps([rgb], 0)[0].uncertainty is None


def test_a_batch_changes_nothing() -> None:
    marigold, images = model(patch_codec()), [photograph(60, 84, 1), photograph(70, 50, 2), photograph(60, 84, 3)]
    together = marigold.infer_images(images, ensemble=2, steps=2)
    for rgb, found in zip(images, together, strict=True):
        assert np.abs(marigold.infer_image(rgb, ensemble=2, steps=2) - found).max() < 1e-5


def test_surgery_keeps_what_a_repeated_input_gives() -> None:
    torch.manual_seed(0)
    unet = random_network("tiny", 4).eval()
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 2, 32)
    with torch.no_grad():
        before = unet(noisy, 7, text).sample
        assert "8 channels instead of 4" in surgery.fit(unet, 4, 1)
        assert (unet(torch.cat([noisy, noisy], 1), 7, text).sample - before).abs().max() < 1e-5
    assert surgery.fit(unet, 4, 1) == "", "an adapted network is left alone"
    assert (unet.config["in_channels"], unet.config["out_channels"]) == (8, 4)
    lighting = random_network("tiny", 4).eval()
    surgery.fit(lighting, 4, 1, 3)
    assert (lighting.config["in_channels"], lighting.config["out_channels"]) == (16, 12)
    with torch.no_grad():
        parts = lighting(torch.randn(1, 16, 8, 8), 7, text[:1]).sample.chunk(3, dim=1)
    assert (parts[0] == parts[2]).all()
    with pytest.raises(ValueError, match="takes 8 channels and gives 4; with latents of 6"):
        surgery.fit(unet, 6, 1)


@pytest.mark.parametrize("codec", ["vae", "patch", "pixels"])
def test_a_directory_gives_the_same_model(codec: str, tmp_path: Path) -> None:
    made = {"vae": small_vae, "patch": patch_codec, "pixels": codecs.PixelCodec}[codec]()
    marigold = model(made, begins="zeros", quantity=Quantity.LOG_DEPTH, how=How(steps=1, ensemble=2))
    save_directory(marigold, tmp_path / "m", "# card", {"run": "marigold-x"})
    assert sorted(each.name for each in (tmp_path / "m").iterdir()) == ["card.md", "config.json", "model.safetensors"]
    loaded = dav2.load(tmp_path / "m", "cpu", "fp32")
    assert isinstance(loaded, Marigold) and loaded.config == marigold.config
    rgb = photograph(24, 32)
    assert (loaded.infer_image(rgb, 32) == marigold.infer_image(rgb, 32)).all()
    other = replace(marigold.config, input_size=96)
    marigold.config = other
    save_directory(marigold, tmp_path / "n")
    assert weights_digest(tmp_path / "n") != weights_digest(tmp_path / "m"), "settings tell models apart"


def test_what_is_saved_for_diffusers_loads_there_and_here(tmp_path: Path) -> None:
    marigold, rgb = model(), photograph(60, 84)
    assert "MarigoldDepthPipeline" in save_pipeline(marigold, tmp_path)
    pipe = MarigoldDepthPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.empty_text_embedding = load_file(tmp_path / EMPTY_TEXT)["embedding"]
    latents = marigold.starts(marigold.network_shape(60, 84), How(seed=9))
    theirs = pipe(Image.fromarray(rgb), latents=latents).prediction[0, ..., 0]
    ours = marigold.infer_image(rgb, seed=9)
    assert np.abs(ours - theirs).max() < 1e-5
    back = dav2.load(tmp_path, "cpu", "fp32")
    assert (back.infer_image(rgb, seed=9) == ours).all()


def test_dav2_export_writes_that_folder(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from dav2.cli import build as command_line

    save_directory(model(patch_codec()), tmp_path / "m")
    arguments = ["export", str(tmp_path / "m"), "--to", "diffusers", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(command_line("export"), arguments)
    assert result.exit_code == 0 and "MarigoldDepthPipeline" in result.output
    assert dav2.load(tmp_path / "out", "cpu", "fp32").config.input_size == 64
    wrong = CliRunner().invoke(command_line("export"), [*arguments[:2], "--to", "onnx"])
    assert wrong.exit_code and "can be exported as: diffusers" in wrong.output + str(wrong.exception)


def test_an_official_folder_with_its_text_encoder_loads(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    marigold = model()
    save_pipeline(marigold, tmp_path)
    (tmp_path / EMPTY_TEXT).unlink()
    torch.manual_seed(3)
    config = CLIPTextConfig(vocab_size=4, hidden_size=32, intermediate_size=16, num_hidden_layers=1,
                            num_attention_heads=2, max_position_embeddings=8)  # fmt: skip
    encoder = CLIPTextModel(config).eval()
    encoder.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "tokenizer").mkdir()
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b</w>": 3}
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(tmp_path / "tokenizer").save_pretrained(tmp_path / "tokenizer")
    with torch.no_grad():
        expected = encoder(torch.tensor([[0, 1]]))[0]
    assert (load_pipeline(tmp_path).prompt - expected).abs().max() < 1e-5


def test_a_base_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    marigold = model()
    save_pipeline(marigold, tmp_path)
    (tmp_path / EMPTY_TEXT).rename(tmp_path / "kept")
    with pytest.raises(WeightsError, match="no text_encoder and no empty_text"):
        dav2.load(tmp_path)
    (tmp_path / "kept").rename(tmp_path / EMPTY_TEXT)
    patch_codec(6).save_pretrained(tmp_path / "vae")
    with pytest.raises(WeightsError, match="its autoencoder has latents of 6; expected 6 or 12 in"):
        dav2.load(tmp_path)
    marigold.codec.save_pretrained(tmp_path / "vae")
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(WeightsError, match=r"scheduler_config\.json is missing; a base needs"):
        dav2.load(tmp_path)


def test_damaged_directories_are_named(tmp_path: Path) -> None:
    save_directory(model(patch_codec()), tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"steps": 0}, "steps must be 1 to 50"),
        ({"begins": "x"}, "begins must be"),
        ({"codec": {"_class_name": "Else"}}, "no codec is called 'Else'"),
        (
            {"unet": {**document["unet"], "in_channels": 4}},
            r"wrong shape: unet\.conv_in\.weight \(32, 8, 3, 3\) instead",
        ),
        ({"format": "else"}, "does not describe a dav2 model"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**document, **change}))
        with pytest.raises(WeightsError, match=message):
            load_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in document.items() if k != "scheduler"}))
    with pytest.raises(WeightsError, match="lacks the key 'scheduler'"):
        load_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(document))
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "prompt": state["prompt"].to(torch.int32)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"'prompt' is of type int32; weights are plain tensors of real numbers"):
        load_directory(tmp_path)


def test_the_codec_stays_in_float32() -> None:
    marigold = model()
    before = marigold.codec.state_dict()
    kept = {name: tensor.clone() for name, tensor in before.items()}
    half = marigold.to(torch.bfloat16)
    assert next(half.unet.parameters()).dtype == torch.bfloat16 == half.prompt.dtype
    assert all((tensor == kept[name]).all() and tensor.dtype == kept[name].dtype
               for name, tensor in half.codec.state_dict().items())  # fmt: skip
    assert np.isfinite(half.infer_image(photograph())).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [({"steps": 0}, "steps must be 1 to 50, not 0"), ({"ensemble": 0}, "ensemble must be 1 to 100, not 0")],
)
def test_what_cannot_be_asked_for_is_refused(how: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(patch_codec()).infer_image(photograph(), **how)
    with pytest.raises(ValueError, match="too long to be seen at 8 pixels"):
        model(patch_codec()).network_shape(10, 400, 8)
