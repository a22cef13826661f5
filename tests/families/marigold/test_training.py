"""Noise, objectives, and that a batch may be shared out in any way."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Diffusion, OneStepDecoded, Sample, aligned_errors
from dav2.families.marigold.process import clean, draw, forward_process, sampler, scheduler_config, stream
from dav2.families.marigold.refiner import Refiner
from dav2.families.marigold.strategies import OBJECTIVES
from dav2.families.marigold.targets import latent_mask
from dav2.families.marigold.task import MarigoldTask
from dav2.params import ProcessParams, RefineParams
from tests.families.marigold.builders import model, patch_codec, photograph, refiner

SAMPLES = 32
DEPTH = [name for name in OBJECTIVES if name != "photographs"]


class Alone:
    """Ranks that stand for one: what all of them hold has been added up already."""

    def __init__(self, everywhere: list[float]) -> None:
        self.everywhere = everywhere

    def sum(self, values: Tensor) -> Tensor:
        return torch.tensor(self.everywhere, dtype=torch.float64)


def batch(count: int = SAMPLES, side: int = 32) -> dict[str, Any]:
    """Photographs with maps whose masks differ much: from nothing to everything."""
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([
        torch.from_numpy(photograph(side, side, seed)).permute(2, 0, 1)[None].float() / 127.5 - 1
        for seed in range(count)
    ])  # fmt: skip
    target = images.mean(dim=1).clamp(-1, 1)
    mask = torch.ones(count, side, side, dtype=torch.bool)
    for row in range(count):
        mask[row, : int(torch.randint(0, side + 1, (), generator=generator))] = False
    mask[1] = False
    return {"image": images, "target": target, "mask": mask, "position": torch.arange(count) + 320}


def task(objective: str, **process: Any) -> MarigoldTask:
    settings = ProcessParams(**process)
    trained = (refiner if objective == "refine" else model)(patch_codec(), settings)
    refine = RefineParams(agree=0.8, least_slope=1e-4)
    return MarigoldTask(trained.train(), OBJECTIVES[objective](settings, 7, refine), "fp32")


def side_of(trained: MarigoldTask) -> int:
    return 56 if isinstance(trained.model, Refiner) else 32


def gradient(trained: MarigoldTask, parts: int, ranks: int) -> Tensor:
    """What the engine makes of a global batch: the mean over micro-batches and ranks."""
    whole = batch(side=side_of(trained))
    size = SAMPLES // parts // ranks
    micro = [{name: value[n * size : (n + 1) * size] for name, value in whole.items()} for n in range(parts * ranks)]
    prepared = trained.objective.prepared(trained.model, Sample(**whole))
    elements = float(trained.objective.elements(trained.model, prepared.mask).sum())
    trained.zero_grad()
    for rank in range(ranks):
        own = micro[rank * parts : (rank + 1) * parts]
        everywhere: Any = Alone([elements, float(parts * ranks)])
        for each in trained.shared(own, everywhere):
            (trained(**each)["loss"] / (parts * ranks)).backward()
    return torch.cat([p.grad.flatten() for p in trained.parameters() if p.grad is not None])


@pytest.mark.parametrize("objective", DEPTH)
def test_one_of_32_two_of_16_and_four_of_8_give_the_same_gradient(objective: str) -> None:
    trained = task(objective)
    whole = gradient(trained, 1, 1)
    largest = float(whole.abs().max())
    for parts, ranks in ((2, 1), (4, 1), (1, 2), (2, 2)):
        assert float((gradient(trained, parts, ranks) - whole).abs().max()) < 1e-6 * max(largest, 1)
    # What is usual, the mean of means, is another gradient.
    trained.zero_grad()
    whole_batch = batch(side=side_of(trained))
    for first in range(0, SAMPLES, 8):
        part = {name: value[first : first + 8] for name, value in whole_batch.items()}
        (trained(**part)["loss"] / 4).backward()
    usual = torch.cat([p.grad.flatten() for p in trained.parameters() if p.grad is not None])
    assert float((usual - whole).abs().max()) > 1e-4 * largest


@pytest.mark.parametrize("objective", DEPTH)
def test_a_batch_without_any_valid_cell_gives_no_gradient(objective: str) -> None:
    trained = task(objective)
    given = batch(4, side_of(trained))
    given["mask"][:] = False
    given["target"][:] = 0
    output = trained(**given)
    output["loss"].backward()
    assert float(output["loss"].detach()) == 0 and float(output["skipped"]) == 1
    assert all(p.grad is None or not bool(p.grad.any()) for p in trained.parameters())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in trained.parameters())


def test_the_codec_is_never_trained() -> None:
    trained = task("one_step_decoded")
    trained(**batch(4))["loss"].backward()
    assert all(p.grad is None and not p.requires_grad for p in trained.model.codec.parameters())


def slow_diffusion(marigold: Marigold, sample: Sample, prediction: str, process: ProcessParams) -> float:
    """Loss of one image, from betas on, cell by cell."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    betas = torch.linspace(low, high, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0).sqrt()
    if process.zero_snr:
        kept = (kept - kept[-1]) * kept[0] / (kept[0] - kept[-1])
    total, count = 0.0, 0
    for row, position in enumerate(sample.position.tolist()):
        generator = stream(7, position)
        step = int(torch.randint(1000, (), generator=generator))
        noise = torch.randn((4, 4, 4), generator=generator)
        image, target = sample.image[row : row + 1], sample.target[row : row + 1, None].repeat(1, 3, 1, 1)
        scale = marigold.codec.config["scaling_factor"]
        seen, z = (marigold.codec.encode(each).latent_dist.mode() * scale for each in (image, target))
        signal = float(kept[step])
        rest = math.sqrt(1 - signal**2)
        noisy = signal * z + rest * noise
        wanted = {"v": signal * noise - rest * z, "epsilon": noise[None], "x0": z}[prediction]
        given = torch.cat([seen, noisy], 1)
        found = marigold.unet(given, step, encoder_hidden_states=marigold.prompt).sample
        for cell_row in range(4):
            for cell in range(4):
                area = sample.mask[row, cell_row * 8 : cell_row * 8 + 8, cell * 8 : cell * 8 + 8]
                if bool(area.all()):
                    difference = found[0, :, cell_row, cell] - wanted[0, :, cell_row, cell]
                    total += float(difference.square().sum())
                    count += 4
    return total / count


@pytest.mark.parametrize(("prediction", "zero"), [("v", True), ("v", False), ("epsilon", False), ("x0", True)])
def test_diffusion_is_the_masked_error_of_what_is_predicted(prediction: str, zero: bool) -> None:
    process = ProcessParams(prediction=prediction, zero_snr=zero, noise="gaussian")  # type: ignore[arg-type]
    marigold, given = model(patch_codec(), process), batch(6)
    sample = Sample(**given)
    trained = MarigoldTask(marigold, Diffusion(process, 7), "fp32")
    with torch.no_grad():
        assert float(trained(**given)["loss"]) == pytest.approx(
            slow_diffusion(marigold, sample, prediction, process), rel=1e-4
        )


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_one_step_from_noise_alone_is_what_the_sampler_gives(prediction: str) -> None:
    process = ProcessParams(prediction=prediction)  # type: ignore[arg-type]
    scheduler = sampler(scheduler_config(process))
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [999]
    output, start = torch.randn(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    ours = clean(
        forward_process(scheduler_config(process)).alphas_cumprod, start, output, torch.tensor([999, 999]),
        scheduler.config["prediction_type"],
    )  # fmt: skip
    theirs = scheduler.step(output, 999, start).pred_original_sample
    assert (ours - theirs).abs().max() < 1e-6
    leading = sampler(scheduler_config(ProcessParams(spacing="leading", zero_snr=False)))
    leading.set_timesteps(1)
    assert leading.timesteps.tolist() == [1], "version 1.0 begins one step at almost no noise"


def slow_multi_resolution(seed: int, position: int, strength: float, annealed: bool) -> tuple[int, Tensor]:
    generator = stream(seed, position)
    step = int(torch.randint(1000, (), generator=generator))
    strength = strength * step / 1000 if annealed else strength
    noise = torch.randn((4, 24, 32), generator=generator)
    height, width = 24, 32
    for level in range(10):
        ratio = 2 + 2 * float(torch.rand((), generator=generator))
        height, width = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        layer = torch.randn((1, 4, height, width), generator=generator)
        noise = noise + strength**level * F.interpolate(layer, (24, 32), mode="bilinear")[0]
        if min(height, width) == 1:
            break
    return step, noise


@pytest.mark.parametrize("kind", ["annealed", "multires"])
def test_noise_of_several_resolutions(kind: str) -> None:
    process = ProcessParams(noise=kind)  # type: ignore[arg-type]
    steps, noise = draw(3, [10, 11, 12], (4, 24, 32), process)
    slow = [slow_multi_resolution(3, position, 0.9, kind == "annealed") for position in (10, 11, 12)]
    assert steps.tolist() == [step for step, _ in slow]
    for found, (_, expected) in zip(noise, slow, strict=True):
        assert (found - expected / expected.std()).abs().max() < 1e-5
        assert abs(float(found.std()) - 1) < 1e-5, "of every sample by itself"
    _, together = draw(3, [10, 11, 12], (4, 24, 32), ProcessParams(noise=kind, unit="batch"))  # type: ignore[arg-type]
    stacked = torch.stack([expected for _, expected in slow])
    assert (together - stacked / stacked.std()).abs().max() < 1e-5


def test_noise_belongs_to_the_sample_and_not_to_the_batch() -> None:
    steps, noise = draw(3, list(range(8)), (4, 12, 12), ProcessParams())
    again, alone = draw(3, [5], (4, 12, 12), ProcessParams())
    assert (alone[0] == noise[5]).all() and again[0] == steps[5]
    assert not (draw(4, [5], (4, 12, 12), ProcessParams())[1] == alone).any()


def test_errors_behind_the_decoder_are_taken_after_least_squares() -> None:
    torch.manual_seed(0)
    target, mask = torch.rand(3, 8, 8) * 2 - 1, torch.rand(3, 8, 8) > 0.3
    mask[2] = False
    found = torch.stack([3 * target[0] + 5, -target[1], target[2]]).requires_grad_()
    errors = aligned_errors(found, target, mask)
    plain = (found - target).abs()
    assert float(errors[0]) == pytest.approx(0.1 * float(plain[0][mask[0]].sum()), rel=1e-4), "any scale and shift"
    centred = (target[1][mask[1]] - target[1][mask[1]].mean()).abs().sum()
    assert float(errors[1]) == pytest.approx(float(centred) + 0.1 * float(plain[1][mask[1]].sum()), rel=1e-4)
    assert float(errors[2]) == 0
    errors.sum().backward()
    assert found.grad is not None and bool(found.grad.isfinite().all())
    constant = torch.zeros(1, 8, 8, requires_grad=True)
    aligned_errors(constant, target[:1], mask[:1]).sum().backward()
    assert constant.grad is not None and bool(constant.grad.isfinite().all())


def test_what_counts() -> None:
    process = ProcessParams()
    marigold, mask = model(patch_codec(), process), torch.ones(2, 16, 16, dtype=torch.bool)
    mask[0, 0, 0] = False
    assert Diffusion(process, 0).elements(marigold, mask).tolist() == [3 * 4, 4 * 4]
    assert OneStepDecoded(process, 0).elements(marigold, mask).tolist() == [255, 256]
    assert latent_mask(mask, 8).sum() == 7


def test_photographs_are_denoised_without_anything_seen() -> None:
    process = ProcessParams(noise="gaussian")
    marigold, given = model(patch_codec(), process, conditions=0), batch(4)
    trained = MarigoldTask(marigold, OBJECTIVES["photographs"](process, 7), "fp32")
    assert marigold.unet.config["in_channels"] == 4
    with torch.no_grad():
        z = marigold.codec.encode(given["image"]).latent_dist.mode() * marigold.codec.config["scaling_factor"]
        steps, noise = draw(7, given["position"].tolist(), (4, 4, 4), process)
        alphas = trained.objective.scheduler.alphas_cumprod[steps].sqrt().view(-1, 1, 1, 1)
        rest = (1 - alphas.square()).sqrt()
        found = marigold.unet(alphas * z + rest * noise, steps, marigold.prompt.expand(4, -1, -1)).sample
        expected = (found - (alphas * noise - rest * z)).square().mean()
        assert float(trained(**given)["loss"]) == pytest.approx(float(expected), rel=1e-4)
    shown = trained.preview(given, 2)
    assert [len(row) for row in shown] == [2, 2] and shown[0][0].shape == (32, 32, 3)
