"""Layers as images of a codec's latents: against diffusers' pipelines and against slow versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MarigoldIntrinsicsPipeline, MarigoldNormalsPipeline
from PIL import Image
from torch import Tensor

import dav2
from dav2.families.directory import WeightsError
from dav2.families.marigold.config import How
from dav2.families.marigold.layer_errors import HOLD, layer_errors
from dav2.families.marigold.modalities import APPEARANCE, LIGHTING, Modality, merge_layers, modality
from dav2.families.marigold.objectives import Sample
from dav2.families.marigold.official import predicted, save_pipeline
from dav2.families.marigold.strategies import OBJECTIVES
from dav2.families.marigold.task import MarigoldTask
from dav2.families.marigold.weights import save_directory
from dav2.families.vectors import angles
from dav2.maps import Quantity
from dav2.params import ProcessParams
from tests.families.marigold.builders import model, patch_codec, photograph, small_vae

NORMALS = modality("normals")
EVERY = {"normals": NORMALS, "appearance": APPEARANCE, "lighting": LIGHTING}


def layers_of(which: Modality, count: int = 2, side: int = 16) -> Tensor:
    """Values that such layers may have, (B, C, H, W)."""
    generator = torch.Generator().manual_seed(len(which.layers))
    values = torch.rand(count, which.channels, side, side, generator=generator)
    if which is NORMALS:
        values = values * 2 - 1
        return values / values.norm(dim=1, keepdim=True)
    return values


def trained_on(target: str, codec: Any = None, **config: Any) -> Any:
    which = EVERY[target]
    settings = {"quantity": which.layers[0], "layers": which.layers, "gamma_coded": which.coded, **config}
    return model(codec or patch_codec(), **settings)


@pytest.mark.parametrize("target", EVERY)
def test_images_mean_the_layers_that_they_were_made_of(target: str) -> None:
    which = EVERY[target]
    values = layers_of(which)
    images = which.to_images(values)
    assert images.shape == (2, 3 * len(which.images), 16, 16) and images.abs().max() <= 1
    assert (which.from_images(images) - values).abs().max() < 1e-5
    assert which.from_images(torch.zeros_like(images)).isfinite().all(), "vectors without length too"


def test_material_is_red_and_green_and_albedo_is_gamma_coded() -> None:
    values = layers_of(APPEARANCE)
    albedo, material = APPEARANCE.to_images(values).split(3, dim=1)
    assert torch.allclose(albedo, values[:, :3] ** (1 / 2.2) * 2 - 1)
    assert torch.equal(material[:, :2], values[:, 3:] * 2 - 1) and (material[:, 2] == -1).all()
    known = torch.ones(1, 3, 4, 4, dtype=torch.bool)
    known[0, 1, 0, 0] = known[0, 2, 1, 1] = False
    masks = APPEARANCE.image_masks(known)
    assert masks.shape == (1, 2, 4, 4) and masks[0, 0].all() and int((~masks[0, 1]).sum()) == 2


@pytest.mark.parametrize(
    "layers", [(), (Quantity.ALBEDO, Quantity.NORMALS), (Quantity.ROUGHNESS,), (Quantity.ALBEDO, Quantity.ALBEDO)]
)
def test_what_no_model_predicts_together_is_refused(layers: tuple[Quantity, ...]) -> None:
    with pytest.raises(ValueError, match=r"together|share an image"):
        Modality(layers)


@pytest.mark.parametrize("reduction", ["closest", "mean"])
def test_normals_are_those_of_diffusers_pipeline(reduction: str) -> None:
    marigold, rgb = trained_on("normals", small_vae()), photograph(60, 84)
    pipe = MarigoldNormalsPipeline(
        marigold.unet, marigold.codec, DDIMScheduler.from_config(marigold.scheduler), None, None, "normals", True
    )
    pipe.empty_text_embedding = marigold.prompt
    pipe.set_progress_bar_config(disable=True)
    latents = marigold.starts(marigold.network_shape(60, 84), How(ensemble=3, seed=5))
    given = {"ensembling_kwargs": {"reduction": reduction}, "output_uncertainty": True}
    theirs = pipe(Image.fromarray(rgb), 2, 3, 64, match_input_resolution=False, latents=latents, **given)
    batch = marigold.network_shape(60, 84)
    ours = marigold.infer_maps([rgb], steps=2, ensemble=3, seed=5, reduction=reduction)[0]
    from dav2.families.marigold.resolution import processed, to_network

    height, width = processed((60, 84), 64)
    members = marigold.members(to_network(rgb, 64, 8), latents, 2)[0, ..., :height, :width].detach()
    found, angle = merge_layers(NORMALS.layers, members, reduction)
    assert batch == (48, 64) and ours.values.shape == (3, 60, 84) and ours.uncertainty is not None
    apart = np.abs(found.permute(1, 2, 0).numpy() - theirs.prediction[0]).max(axis=-1) > 1e-3
    assert apart.mean() < (5e-3 if reduction == "closest" else 1e-9), "two members can be equally close"
    (again, uncertain) = MarigoldNormalsPipeline.ensemble_normals(members, True, reduction)
    assert torch.equal(found, again[0]) or (found - again[0]).abs().max() < 1e-6
    assert (angle / 180 - uncertain[0]).abs().max() < 1e-6
    assert np.abs(np.linalg.norm(ours.values, axis=0) - 1).max() < 1e-5, "unit vectors after enlarging"


@pytest.mark.parametrize("target", ["appearance", "lighting"])
def test_intrinsics_are_those_of_diffusers_pipeline(target: str) -> None:
    marigold, rgb = trained_on(target, small_vae()), photograph(60, 84)
    names = ["albedo", "material"] if target == "appearance" else ["albedo", "shading", "residual"]
    pipe = MarigoldIntrinsicsPipeline(
        marigold.unet, marigold.codec, DDIMScheduler.from_config(marigold.scheduler), None, None, "intrinsics",
        {"target_names": names},
    )  # fmt: skip
    pipe.empty_text_embedding = marigold.prompt
    pipe.set_progress_bar_config(disable=True)
    latents = marigold.starts(marigold.network_shape(60, 84), How(seed=5))
    theirs = pipe(Image.fromarray(rgb), 2, 1, 64, latents=latents, match_input_resolution=False).prediction
    from dav2.families.marigold.resolution import processed, to_network

    height, width = processed((60, 84), 64)
    found = marigold.members(to_network(rgb, 64, 8), latents, 2)[0, 0, :, :height, :width].detach()
    ours = ((EVERY[target].to_images(found[None])[0] + 1) / 2).unflatten(0, (-1, 3)).permute(0, 2, 3, 1).numpy()
    shown = [slice(0, 2) if name == "material" else slice(0, 3) for name in names]
    for mine, their, channels in zip(ours, theirs, shown, strict=True):
        assert np.abs(mine[..., channels] - their[..., channels]).max() < 1e-4
    maps = marigold.infer_maps([rgb], steps=2, ensemble=3)[0]
    assert [each.quantity for each in maps.every] == list(EVERY[target].layers)
    assert all(each.uncertainty is not None and each.uncertainty.shape == (60, 84) for each in maps.every)
    assert all(
        each.colour_space == "linear" and 0 <= each.values.min() <= each.values.max() <= 1 for each in maps.every
    )


def test_only_normals_have_a_closest_member() -> None:
    with pytest.raises(ValueError, match="'closest' is for normals"):
        trained_on("lighting").infer_maps([photograph()], ensemble=2, reduction="closest")
    with pytest.raises(ValueError, match="'closest' is for normals"):
        model(patch_codec()).infer_maps([photograph()], ensemble=2, reduction="closest")


def test_angles_are_those_of_the_arc_cosine_and_have_a_derivative_everywhere() -> None:
    target = layers_of(NORMALS)
    found = (target + 0.3 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))) * 0.7
    cosine = torch.nn.functional.cosine_similarity(found.double(), target.double(), dim=1)
    assert (angles(found, target) - cosine.acos()).abs().max() < 1e-4
    same = target.clone().requires_grad_()
    angles(same, target).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()


@pytest.mark.parametrize("target", EVERY)
def test_errors_are_sums_over_known_pixels(target: str) -> None:
    which = EVERY[target]
    wanted = which.to_images(layers_of(which))
    found = (wanted * 0.6 + 0.1).clone()
    mask = torch.rand(2, len(which.images), 16, 16, generator=torch.Generator().manual_seed(1)) > 0.4
    errors, slow = layer_errors(which, found, wanted, mask), [0.0, 0.0]
    for sample, image, y, x in mask.nonzero().tolist():
        p, t = (each[sample, 3 * image : 3 * image + 3, y, x].double() for each in (found, wanted))
        difference = float((p - t).abs().mean())
        if which is NORMALS:
            difference = float((p @ t / p.norm() / t.norm()).acos()) + HOLD * difference
        slow[sample] += difference
    assert errors.tolist() == pytest.approx(slow, rel=1e-4)


@pytest.mark.parametrize("target", EVERY)
@pytest.mark.parametrize("objective", ["diffusion", "one_step_x0", "one_step_decoded"])
def test_masked_pixels_teach_nothing(target: str, objective: str) -> None:
    which = EVERY[target]
    marigold = trained_on(target)
    task = MarigoldTask(marigold.train(), OBJECTIVES[objective](ProcessParams(), 7), "fp32")
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    wanted, mask = which.to_images(layers_of(which)), torch.ones(2, len(which.images), 16, 16, dtype=torch.bool)
    mask[0, -1], mask[1, :, :8] = False, False
    changed = wanted.where(mask.repeat_interleave(3, dim=1), -wanted)
    given = {"image": image, "mask": mask, "position": torch.arange(2)}
    losses = [float(task(target=each, **given)["loss"].detach()) for each in (wanted, changed)]
    assert losses[0] > 0
    if objective != "diffusion":
        assert losses[0] == pytest.approx(losses[1], rel=1e-6), "a denoiser sees what is masked and is not judged by it"
    elements = task.objective.elements(marigold, mask).tolist()
    per_image = 4 * marigold.latent if objective != "one_step_decoded" else 256
    images = len(which.images)
    assert elements == [per_image * (images - 1), per_image * images // 2]
    nothing = task(target=wanted, **{**given, "mask": torch.zeros_like(mask)})
    assert float(nothing["loss"].detach()) == 0 and float(nothing["skipped"]) == 1
    rows = task.preview({"target": wanted, **given}, 2)
    assert len(rows) == 2 and len(rows[0]) == 1 + 2 * images and rows[0][1].shape == (16, 16, 3)
    assert Sample(target=wanted, **given).guide is None


@pytest.mark.parametrize("target", EVERY)
def test_a_directory_gives_the_same_layers(target: str, tmp_path: Any) -> None:
    marigold = trained_on(target, begins="zeros")
    save_directory(marigold, tmp_path / "m")
    loaded = dav2.load(tmp_path / "m", "cpu", "fp32")
    assert loaded.config == marigold.config
    ours, theirs = (each.infer_maps([photograph(24, 32)], 32)[0] for each in (marigold, loaded))
    for mine, their in zip(ours.every, theirs.every, strict=True):
        assert np.abs(mine.values - their.values).max() < 1e-4, "vectors magnify a last digit of what was decoded"


@pytest.mark.parametrize("target", EVERY)
def test_what_is_saved_for_diffusers_loads_there_and_here(target: str, tmp_path: Any) -> None:
    marigold, rgb = trained_on(target, small_vae()), photograph(60, 84)
    kind = MarigoldNormalsPipeline if target == "normals" else MarigoldIntrinsicsPipeline
    assert kind.__name__ in save_pipeline(marigold, tmp_path)
    pipe = kind.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.empty_text_embedding = marigold.prompt
    latents = marigold.starts(marigold.network_shape(60, 84), How(seed=9))
    shown = pipe(Image.fromarray(rgb), latents=latents, match_input_resolution=False)
    if target == "normals":
        shape = (1, 45, 64, 3)
    else:
        shape = (len(EVERY[target].images), 45, 64, 3)
        pictures = pipe.image_processor.visualize_intrinsics(shown.prediction, pipe.target_properties)[0]
        assert set(pictures) >= {each.value for each in EVERY[target].layers}, "it knows the names that we give"
    assert shown.prediction.shape == shape
    back = dav2.load(tmp_path, "cpu", "fp32")
    assert back.config.modality == marigold.config.modality
    ours, theirs = (each.infer_maps([rgb], seed=9)[0] for each in (marigold, back))
    assert all(np.abs(a.values - b.values).max() < 1e-4 for a, b in zip(ours.every, theirs.every, strict=True))


def test_the_published_appearance_model_is_gamma_coded_throughout() -> None:
    index = {"prediction_type": "intrinsics", "target_properties": {"target_names": ["albedo", "material"]}}
    assert predicted(Path("m"), index) == Modality(APPEARANCE.layers, APPEARANCE.layers)
    index["target_properties"] = {"target_names": ["albedo", "shading", "residual"]}
    assert predicted(Path("m"), index) == LIGHTING
    for wrong in ({"prediction_type": "normals", "use_full_z_range": False}, {**index, "target_properties": {}}):
        with pytest.raises(WeightsError, match="normals with their full range"):
            predicted(Path("m"), wrong)
