"""Scores of normals, appearance and light against slow, independent versions of their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from dav2.maps import LAYERS, Quantity
from dav2.scores import intrinsics, scoring
from dav2.scores.layer_protocols import LAYER_PROTOCOLS, declared
from dav2.scores.layers import NO_LAYER, score_layers, split_channels
from dav2.scores.normals import NAMES, THRESHOLDS, angles, normal_metrics
from dav2.scores.protocols import PROTOCOLS

Q = Quantity
Array = NDArray[np.float64]


def some_normals(seed: int, size: tuple[int, int] = (23, 31)) -> torch.Tensor:
    values = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values / values.norm(dim=0)


def slow_angles(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> list[float]:
    found = []
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            if mask[row, column]:
                p, t = prediction[:, row, column].tolist(), target[:, row, column].tolist()
                lengths = math.sqrt(sum(v * v for v in p)) * math.sqrt(sum(v * v for v in t))
                cosine = sum(a * b for a, b in zip(p, t, strict=True)) / lengths
                found.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    return found


@pytest.mark.parametrize("noise", [0.02, 0.3, 5.0])
def test_normal_metrics_are_those_of_the_slow_version(noise: float) -> None:
    target = some_normals(0)
    prediction = 2.5 * (target + noise * some_normals(1))
    mask = torch.rand(target.shape[1:], generator=torch.Generator().manual_seed(2)) > 0.3
    target[:, ~mask] = float("nan")
    found, errors = normal_metrics(prediction, target, mask), slow_angles(prediction, target, mask)
    expected = [float(np.mean(errors)), float(np.median(errors))]
    expected += [sum(each < limit for each in errors) / len(errors) for limit in THRESHOLDS]
    assert tuple(found) == NAMES
    assert list(found.values()) == pytest.approx(expected, abs=1e-5)


def test_small_angles_keep_their_digits_and_nothing_stands_at_right_angles() -> None:
    target = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)
    for angle in (1e-4, 1e-2, 179.999):
        radians = math.radians(angle)
        turned = torch.tensor([math.sin(radians), 0.0, math.cos(radians)], dtype=torch.float64).view(3, 1, 1)
        assert float(angles(turned, target)) == pytest.approx(angle, abs=1e-9)
    assert float(angles(torch.zeros(3, 1, 1), target)) == 90.0


def test_an_empty_mask_or_a_prediction_that_is_not_finite_gives_nan() -> None:
    target, mask = some_normals(0), torch.ones(23, 31, dtype=torch.bool)
    assert all(math.isnan(each) for each in normal_metrics(target, target, ~mask).values())
    spoiled = target.clone()
    spoiled[0, 3, 3] = float("nan")
    assert all(math.isnan(each) for each in normal_metrics(spoiled, target, mask).values())


def maps(quantity: Quantity, seed: int, size: tuple[int, int] = (40, 36)) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Prediction, truth and mask as (C, H, W), with structure and gaps."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]] / 9
    wave = 0.5 + 0.4 * np.sin(x + np.arange(quantity.channels)[:, None, None]) * np.cos(y)
    truth = wave * (7.0 if quantity in intrinsics.LIGHT else 1.0)
    prediction = (wave + rng.normal(0, 0.1, wave.shape)).clip(0, 1)
    mask = rng.random(size) > 0.2
    truth = np.where(mask, truth, np.nan)
    return prediction, truth, mask


def slow_layer(quantity: Quantity, prediction: Array, truth: Array, mask: NDArray[np.bool_]) -> tuple[float, float]:
    """The published order: scale, tone, clip, PSNR of valid pixels, zeros elsewhere, SSIM."""
    p, t = prediction.copy(), np.nan_to_num(truth)
    if quantity in intrinsics.LIGHT:
        scale = np.sum(p[:, mask] * t[:, mask]) / np.sum(p[:, mask] ** 2)
        luminance = 0.3 * t[0] + 0.59 * t[1] + 0.11 * t[2]
        tone = 0.8 / np.quantile(luminance[mask], 0.9)
        p, t = np.clip(p * scale * tone, 0, 1), np.clip(t * tone, 0, 1)
    elif quantity is Q.ALBEDO:
        p, t = np.clip(p, 0, 1) ** (1 / 2.2), np.clip(t, 0, 1) ** (1 / 2.2)
    psnr = 10 * np.log10(1 / np.mean((p[:, mask] - t[:, mask]) ** 2))
    p, t = p * mask, t * mask
    similar = structural_similarity(
        p, t, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
    )
    return float(psnr), float(similar)


@pytest.mark.parametrize("quantity", [q for q in LAYERS if q is not Q.NORMALS])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_layer_metrics_are_those_of_the_published_order(quantity: Quantity, seed: int) -> None:
    prediction, truth, mask = maps(quantity, seed)
    arguments = [torch.from_numpy(each) for each in (prediction, truth, mask)]
    before = [each.clone() for each in arguments]
    found = intrinsics.layer_metrics(quantity, *arguments)  # type: ignore[arg-type]
    expected = slow_layer(quantity, prediction, truth, mask)
    assert (found["psnr"], found["ssim"]) == pytest.approx(expected, abs=1e-5)
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(arguments, before, strict=True))


def test_light_is_judged_up_to_one_factor_and_albedo_is_not() -> None:
    for quantity in (Q.SHADING, Q.ALBEDO):
        prediction, truth, mask = (torch.from_numpy(each) for each in maps(quantity, 0))
        one, two = (intrinsics.layer_metrics(quantity, prediction * f, truth, mask)["psnr"] for f in (1.0, 0.3))
        assert (one == pytest.approx(two, abs=1e-9)) == (quantity is Q.SHADING)


def test_equal_maps_score_the_best_there_is_and_empty_masks_nothing() -> None:
    _, truth, mask = (torch.from_numpy(each) for each in maps(Q.RESIDUAL, 0))
    best = intrinsics.layer_metrics(Q.RESIDUAL, truth.nan_to_num(0), truth, mask)
    assert best == {"psnr": pytest.approx(100.0), "ssim": pytest.approx(1.0)}
    assert all(math.isnan(each) for each in intrinsics.layer_metrics(Q.RESIDUAL, truth, truth, mask & False).values())
    dark = intrinsics.layer_metrics(Q.SHADING, truth * 0, truth, mask)
    assert 0 < dark["psnr"] < 30, "a map of zeros has no factor, and is no division by zero"


def test_recomposition_is_that_of_the_slow_version() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.uniform(0, 1, (3, 20, 24)) for _ in range(3)]
    image = (parts[0] * parts[1] + parts[2]) * 5 + rng.normal(0, 0.2, parts[0].shape).clip(0)
    mask = rng.random(image.shape[1:]) > 0.2
    made = (parts[0] * parts[1] + parts[2]) * mask
    scale = np.sum(made * image * mask) / np.sum(made**2)
    tone = 0.8**2.2 / np.quantile((np.array([0.3, 0.59, 0.11]) @ image[:, mask]), 0.9)
    coded = [np.clip(each * tone, 0, 1) ** (1 / 2.2) for each in (made * scale, image)]
    expected = -10 * np.log10(np.mean((coded[0] - coded[1])[:, mask] ** 2))
    found = intrinsics.recomposition(*(torch.from_numpy(each) for each in (*parts, image, mask)))
    assert found == pytest.approx(expected, abs=1e-5)


def frame(*quantities: Quantity) -> dict[Quantity, torch.Tensor]:
    found = {}
    for quantity in quantities:
        if quantity is Q.NORMALS:
            found[quantity] = some_normals(3, (40, 36)).float()
        else:
            found[quantity] = torch.from_numpy(maps(quantity, 5)[1]).float()
    return found


def test_a_frame_is_judged_layer_by_layer_with_its_recomposition() -> None:
    truth = frame(Q.ALBEDO, Q.SHADING, Q.RESIDUAL, Q.NORMALS)
    perfect = {quantity: values.nan_to_num(0.5) for quantity, values in truth.items()}
    scored = score_layers(perfect, truth, LAYER_PROTOCOLS["lighting-plain"])
    assert scored.problem is None
    names = [f"{q}_{m}" for q in (Q.ALBEDO, Q.SHADING, Q.RESIDUAL) for m in ("psnr", "ssim")]
    assert list(scored.metrics) == [*names, "recomposition_psnr"]
    assert scored.metrics["recomposition_psnr"] > 90
    assert score_layers(perfect, truth, LAYER_PROTOCOLS["normals-plain"]).metrics["mean"] < 1e-3


def test_the_switch_for_the_released_checkpoint_undoes_its_gamma() -> None:
    truth = frame(Q.ALBEDO, Q.ROUGHNESS, Q.METALLICITY)
    linear = {quantity: values.nan_to_num(0.2) for quantity, values in truth.items()}
    coded = {quantity: values ** (1 / 2.2) for quantity, values in linear.items()}
    ours = score_layers(linear, truth, LAYER_PROTOCOLS["appearance-interiorverse"]).metrics
    theirs = score_layers(coded, truth, LAYER_PROTOCOLS["appearance-released"]).metrics
    wrong = score_layers(coded, truth, LAYER_PROTOCOLS["appearance-interiorverse"]).metrics
    assert min(ours.values()) > 0.999 and min(theirs.values()) > 0.999
    assert wrong["roughness_psnr"] < 20 < theirs["roughness_psnr"]


def test_what_cannot_be_judged_says_why() -> None:
    protocol, truth = LAYER_PROTOCOLS["normals-plain"], frame(Q.NORMALS)
    assert score_layers(truth, frame(Q.ALBEDO), protocol).problem == NO_LAYER
    assert score_layers({Q.NORMALS: torch.ones(3, 5, 5)}, truth, protocol).problem == scoring.WRONG_SIZE
    unknown = {Q.NORMALS: torch.full((3, 40, 36), torch.nan)}
    assert score_layers(unknown, truth, protocol).problem == scoring.NOT_FINITE
    assert score_layers(truth, unknown, protocol).problem == scoring.NO_PIXELS


def test_channels_are_told_apart_in_order() -> None:
    values = torch.arange(7.0).view(7, 1, 1).expand(7, 4, 5)
    parts = split_channels((Q.ROUGHNESS, Q.NORMALS, Q.SHADING), values)
    assert [part[:, 0, 0].tolist() for part in parts.values()] == [[0], [1, 2, 3], [4, 5, 6]]
    assert split_channels((Q.ROUGHNESS,), values[0])[Q.ROUGHNESS].shape == (1, 4, 5)
    with pytest.raises(ValueError, match="has 6 channels, not 7"):
        split_channels((Q.ALBEDO, Q.SHADING), values)


def test_protocols_are_found_by_name_and_differ() -> None:
    assert declared("normals-nyu").frames == 654 and declared("da-v2-nyu") is PROTOCOLS["da-v2-nyu"]
    assert len({each.digest() for each in LAYER_PROTOCOLS.values()}) == len(LAYER_PROTOCOLS)
    assert all(each.describe() for each in LAYER_PROTOCOLS.values())
    with pytest.raises(ValueError, match="no protocol 'normals-kitti'; there are: da-v2-nyu"):
        declared("normals-kitti")
