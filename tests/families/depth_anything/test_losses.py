"""Losses against the obvious float64 versions, their invariances, their gradients, and data that teaches nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from dav2.families.depth_anything.losses import feature_loss, relative_loss, silog_loss, trimmed_mean
from tests.families.depth_anything import slow_losses as slow

SEGMENTS = {"global": [1], "local": [4], "hybrid": [1, 2, 4]}


class Data(NamedTuple):
    prediction: Tensor
    target: Tensor
    mask: Tensor
    region: Tensor


def make(seed: int, batch: int = 3, height: int = 13, width: int = 17, pasted: bool = False) -> Data:
    rng = np.random.default_rng(seed)
    prediction = rng.gamma(2.0, 3.0, (batch, height, width))
    target = rng.random((batch, height, width))
    mask = rng.random((batch, height, width)) > 0.2
    region = np.zeros((batch, height, width), np.uint8)
    if pasted:
        region[0, 3:9, 4:12] = 1
        region[1, :, :6] = 1
    return Data(*(torch.from_numpy(a) for a in (prediction, target, mask, region)))


def numpy_of(data: Data, image: int) -> tuple[Any, ...]:
    return tuple(part[image].numpy() for part in data)


@pytest.mark.parametrize("pasted", [False, True])
@pytest.mark.parametrize(
    ("alignment", "normalisation", "trim"),
    [("median", "global", 0.0), ("median", "global", 0.1), ("lstsq", "global", 0.0), ("lstsq", "global", 0.2),
     ("median", "local", 0.1), ("median", "hybrid", 0.1)],
)  # fmt: skip
def test_relative_loss_equals_the_obvious_version(
    alignment: Any, normalisation: Any, trim: float, pasted: bool
) -> None:
    data = make(1, pasted=pasted)
    loss = relative_loss(*data, alignment=alignment, normalisation=normalisation, trim=trim, scales=3)
    for image in range(3):
        p, t, m, r = numpy_of(data, image)
        wanted = slow.ssi(p, t, m, r, trim, alignment, SEGMENTS[normalisation])
        assert loss.ssi[image].item() == pytest.approx(wanted, rel=1e-9)
        assert loss.gradient[image].item() == pytest.approx(slow.gradient(p, t, m, r, 3, alignment), rel=1e-9)


def test_float32_stays_close_to_the_obvious_float64_version() -> None:
    data = make(2, height=40, width=40)
    single = Data(data.prediction.float(), data.target.float(), data.mask, data.region)
    loss = relative_loss(*single, trim=0.1)
    p, t, m, r = numpy_of(data, 0)
    assert loss.ssi[0].item() == pytest.approx(slow.ssi(p, t, m, r, 0.1, "median", [1]), rel=1e-4)


@pytest.mark.parametrize("alignment", ["median", "lstsq"])
def test_scale_and_shift_of_the_prediction_do_not_matter(alignment: Any) -> None:
    data = make(3)
    moved = data._replace(prediction=7.0 * data.prediction + 11.0)
    one, two = relative_loss(*data, alignment=alignment), relative_loss(*moved, alignment=alignment)
    torch.testing.assert_close(one.ssi, two.ssi)
    torch.testing.assert_close(one.gradient, two.gradient)


def test_each_cutmix_region_has_a_scale_and_shift_of_its_own() -> None:
    data = make(4, pasted=True)
    pasted = data.region == 1
    moved = data._replace(prediction=torch.where(pasted, 5.0 * data.prediction + 2.0, 0.1 * data.prediction - 3.0))
    torch.testing.assert_close(relative_loss(*data).ssi, relative_loss(*moved).ssi)
    torch.testing.assert_close(relative_loss(*data).gradient, relative_loss(*moved).gradient)


def test_an_aligned_prediction_has_no_loss() -> None:
    data = make(5)
    for alignment in ("median", "lstsq"):
        loss = relative_loss(3.0 * data.target + 2.0, data.target, data.mask, alignment=alignment)  # type: ignore[arg-type]
        assert loss.ssi.abs().max() < 1e-12
        assert loss.gradient.abs().max() < 1e-10


def test_what_lies_outside_the_mask_does_not_matter_even_if_it_is_nan() -> None:
    data = make(6)
    spoiled = data._replace(target=torch.where(data.mask, data.target, torch.nan))
    prediction = torch.where(data.mask, data.prediction, data.prediction * 100 + 5)
    one, two = relative_loss(*data, trim=0.1), relative_loss(*spoiled._replace(prediction=prediction), trim=0.1)
    torch.testing.assert_close(one.ssi, two.ssi)
    torch.testing.assert_close(one.gradient, two.gradient)


def test_the_first_term_does_not_depend_on_the_order_of_pixels() -> None:
    data = make(7)
    order = torch.randperm(13 * 17, generator=torch.Generator().manual_seed(0))
    shuffled = Data(*(part.flatten(1)[:, order].view_as(part) for part in data))
    torch.testing.assert_close(relative_loss(*data, trim=0.1).ssi, relative_loss(*shuffled, trim=0.1).ssi)


def test_images_do_not_see_each_other() -> None:
    data = make(8, pasted=True)
    together = relative_loss(*data, trim=0.1)
    for image in range(3):
        alone = relative_loss(*(part[image : image + 1] for part in data), trim=0.1)
        torch.testing.assert_close(together.ssi[image], alone.ssi[0])
        torch.testing.assert_close(together.gradient[image], alone.gradient[0])


def test_trimming_leaves_out_the_largest_errors_of_each_image() -> None:
    error = torch.tensor([[1.0, 2.0, 3.0, 100.0, 4.0], [1000.0, 10.0, 20.0, 30.0, 50.0]])
    used = torch.tensor([[True] * 5, [True, True, True, True, False]])
    torch.testing.assert_close(trimmed_mean(error, used, 0.25), torch.tensor([2.5, 20.0]))
    torch.testing.assert_close(trimmed_mean(error, used, 0.0), torch.tensor([22.0, 265.0]))


def test_equal_errors_are_kept_whatever_their_order() -> None:
    error = torch.ones(1, 10)
    assert trimmed_mean(error, torch.ones(1, 10, dtype=torch.bool), 0.3).item() == 1.0


@pytest.mark.parametrize("case", ["empty mask", "constant target", "all sky"])
def test_an_image_that_teaches_nothing_has_no_loss_and_no_gradient(case: str) -> None:
    data = make(9)
    target, mask = data.target.clone(), data.mask.clone()
    if case == "empty mask":
        mask[1] = False
    else:
        target[1] = 0.0 if case == "all sky" else 0.7
    prediction = data.prediction.clone().requires_grad_()
    loss = relative_loss(prediction, target, mask, trim=0.1)
    (loss.ssi + loss.gradient).sum().backward()
    assert loss.counted.tolist() == [True, False, True]
    assert loss.ssi[1] == 0 and loss.gradient[1] == 0
    assert prediction.grad is not None and prediction.grad.isfinite().all()
    assert not prediction.grad[1].any() and prediction.grad[0].any()


def test_a_dead_prediction_gives_finite_loss_and_gradient() -> None:
    data = make(10)
    prediction = torch.zeros_like(data.prediction, requires_grad=True)
    for alignment in ("median", "lstsq"):
        loss = relative_loss(prediction, data.target, data.mask, alignment=alignment)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad((loss.ssi + loss.gradient).sum(), prediction)
        assert loss.ssi.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize(
    ("alignment", "normalisation"), [("median", "global"), ("lstsq", "global"), ("median", "hybrid")]
)
def test_gradients_are_those_of_the_function(alignment: Any, normalisation: Any) -> None:
    data = make(11, batch=2, height=6, width=7, pasted=True)

    def total(prediction: Tensor) -> Tensor:
        loss = relative_loss(
            prediction, *data[1:], alignment=alignment, normalisation=normalisation, trim=0.1, scales=2
        )
        return loss.ssi.sum() + 2 * loss.gradient.sum()

    assert torch.autograd.gradcheck(total, data.prediction.clone().requires_grad_(), eps=1e-7, atol=1e-5)


def test_least_squares_refuses_other_normalisations() -> None:
    with pytest.raises(ValueError, match=r"loss\.normalisation"):
        relative_loss(*make(12), alignment="lstsq", normalisation="hybrid")


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0])
def test_silog_equals_the_obvious_version(focus: float) -> None:
    data = make(13)
    target = data.target * 20 + 0.1
    loss = silog_loss(data.prediction + 0.1, target, data.mask, focus)
    for image in range(3):
        p, _, m, _ = numpy_of(data, image)
        wanted = slow.silog(p + 0.1, target[image].numpy(), m, focus)
        assert loss[image].item() == pytest.approx(wanted, rel=1e-9)


def test_silog_with_full_variance_focus_ignores_scale() -> None:
    data = make(14)
    target = data.target * 20 + 0.1
    one, two = (silog_loss(k * (data.prediction + 0.1), target, data.mask, 1.0) for k in (1.0, 9.0))
    torch.testing.assert_close(one, two)


def test_silog_survives_zeros_perfection_and_empty_masks() -> None:
    target = torch.full((3, 4, 4), 5.0)
    prediction = torch.stack([torch.zeros(4, 4), torch.full((4, 4), 5.0), torch.ones(4, 4)]).requires_grad_()
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    mask[2] = False
    loss = silog_loss(prediction, target, mask)
    (gradient,) = torch.autograd.grad(loss.sum(), prediction)
    assert loss.isfinite().all() and gradient.isfinite().all()
    assert loss[2] == 0 and loss[1] < 1e-5
    assert not gradient[2].any()


def test_feature_loss_equals_the_obvious_version_and_leaves_out_close_patches() -> None:
    rng = np.random.default_rng(15)
    features = rng.normal(size=(2, 9, 6))
    reference = features + rng.normal(size=(2, 9, 6)) * rng.choice([0.05, 1.0], (2, 9, 1))
    loss = feature_loss(torch.from_numpy(features), torch.from_numpy(reference), 0.85)
    for image in range(2):
        assert loss[image].item() == pytest.approx(slow.feature(features[image], reference[image], 0.85), rel=1e-5)
    assert feature_loss(torch.from_numpy(features), torch.from_numpy(2 * features), 0.85).tolist() == [0.0, 0.0]
