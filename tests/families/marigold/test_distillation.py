"""Few steps: the loss and the sampler against diffusers, and runs that distil a model."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, MarigoldDepthPipeline
from PIL import Image
from safetensors.torch import load_file

import dav2
from dav2 import families, layout
from dav2.families.directory import WeightsError
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.ceiling import make_codec
from dav2.families.marigold.config import How
from dav2.families.marigold.distillation import Distillation
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Sample, latents_of
from dav2.families.marigold.official import save_pipeline
from dav2.families.marigold.process import few_steps_config, scheduler_config, stream
from dav2.families.marigold.task import MarigoldTask
from dav2.maps import Quantity
from dav2.params import LcmParams, ParamsError, ProcessParams, load
from dav2.training.recipes import build_recipe
from tests.families.marigold.builders import model, patch_codec, photograph, refiner
from tests.families.marigold.test_runs import CODEC, OPTIM, RUN
from tests.families.marigold.test_training import batch
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import make_project

LCM: dict[str, Any] = {
    **RUN, "objective": "lcm", "start": "models/marigold-noise", "infer_steps": 2, "optim": {**OPTIM, "ema": 0.5},
}  # fmt: skip


def distilled(grid: int = 5, **process: Any) -> Marigold:
    """A model with random weights that infers as a distilled one."""
    settings = ProcessParams(**process)
    made = model(patch_codec(), settings)
    made.scheduler = few_steps_config(settings, grid)
    return made


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_maps_are_those_of_diffusers_lcm_scheduler(prediction: str, steps: int) -> None:
    marigold, rgb = distilled(prediction=prediction), photograph(60, 84)
    pipe = MarigoldDepthPipeline(
        marigold.unet, marigold.codec, LCMScheduler.from_config(marigold.scheduler), None, None,
        prediction_type="depth", scale_invariant=True, shift_invariant=True,
    )  # fmt: skip
    pipe.empty_text_embedding = marigold.prompt
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    theirs = pipe(Image.fromarray(rgb), steps, 1, 64, generator=generator).prediction[0, ..., 0]
    ours = marigold.infer_image(rgb, steps=steps, seed=5)
    assert float(ours.std()) > 1e-3 and np.abs(ours - theirs).max() < 1e-5


def test_a_folder_for_diffusers_has_its_lcm_scheduler(tmp_path: Path) -> None:
    marigold, rgb = few(model(quantity=Quantity.DISPARITY)), photograph(60, 84)
    save_pipeline(marigold, tmp_path)
    pipe = MarigoldDepthPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
    assert isinstance(pipe.scheduler, LCMScheduler)
    back = dav2.load(tmp_path, "cpu", "fp32")
    assert (back.infer_image(rgb, steps=3) == marigold.infer_image(rgb, steps=3)).all()


def test_noise_between_steps_belongs_to_the_seed_and_not_to_the_batch() -> None:
    marigold, images = distilled(), [photograph(60, 84, 1), photograph(60, 84, 2)]
    together = marigold.infer_images(images, ensemble=3, steps=3)
    for rgb, found in zip(images, together, strict=True):
        assert np.abs(marigold.infer_image(rgb, ensemble=3, steps=3) - found).max() < 1e-5
    marigold.config = replace(marigold.config, how=How(steps=2))
    assert marigold.infer_part(images[0][:40, :52], (8, 16), (60, 84)).values.shape == (40, 52)
    with pytest.raises(ValueError, match="distilled to at most 5 steps, not 6"):
        marigold.infer_image(images[0], steps=6)
    with pytest.raises(ValueError, match="distilled to at most 5 steps"):
        families.get("marigold").set_sampling(marigold, 10, None, None)


def slow_loss(trained: MarigoldTask, target: torch.nn.Module, given: dict[str, Any], lcm: LcmParams) -> float:
    """Loss of a batch by diffusers' own schedulers, image by image."""
    marigold, teacher = trained.model, trained.objective.beside[0]
    seen, clean = latents_of(marigold, Sample(**given))
    ddim = DDIMScheduler.from_config(scheduler_config(ProcessParams()))
    ddim.set_timesteps(lcm.grid)
    few = LCMScheduler.from_config(few_steps_config(ProcessParams(), lcm.grid))
    total, count = 0.0, 0

    def passed(network: Any, row: int, latent: torch.Tensor, level: int) -> torch.Tensor:
        joined = torch.cat([seen[row : row + 1], latent], dim=1)
        output: torch.Tensor = network(joined, level, encoder_hidden_states=marigold.prompt).sample
        return output

    def consistent(network: Any, row: int, latent: torch.Tensor, level: int) -> torch.Tensor:
        # At level 0 the schedulers have no last step: only there the scalings decide by themselves.
        few.set_timesteps(timesteps=[level]) if level else None
        if level == 0:
            return latent
        found: torch.Tensor = few.step(passed(network, row, latent, level), level, latent).denoised
        return found

    for row, position in enumerate(given["position"].tolist()):
        generator = stream(7, position)
        level = (int(torch.randint(lcm.grid, (), generator=generator)) + 1) * (1000 // lcm.grid) - 1
        noise = torch.randn(tuple(clean.shape[1:]), generator=generator)[None]
        noisy = few.add_noise(clean[row : row + 1], noise, torch.tensor([level]))
        stepped = ddim.step(passed(teacher, row, noisy, level), level, noisy).prev_sample
        before = max(level - 1000 // lcm.grid, 0)
        wrong = consistent(marigold.unet, row, noisy, level) - consistent(target, row, stepped, before)
        each = wrong.square() if lcm.loss == "l2" else (wrong.square() + lcm.huber**2).sqrt() - lcm.huber
        cells = torch.nn.functional.avg_pool2d(given["mask"][row : row + 1].float(), 8) == 1
        total += float((each * cells).sum())
        count += 4 * int(cells.sum())
    return total / count


@pytest.mark.parametrize("lcm", [LcmParams(), LcmParams(grid=4, loss="l2"), LcmParams(huber=0.5)])
def test_the_loss_is_what_diffusers_schedulers_give(lcm: LcmParams) -> None:
    marigold, given = model(patch_codec()), batch(8)
    objective = Distillation(ProcessParams(), 7, lcm=lcm)
    trained = MarigoldTask(marigold, objective, "fp32")
    target = objective.beside[1]
    other = model(patch_codec(), seed=1).unet
    with torch.no_grad():
        target.load_state_dict(other.state_dict())
        marigold.unet.load_state_dict(model(patch_codec(), seed=2).unet.state_dict())
        assert float(trained(**given)["loss"]) == pytest.approx(slow_loss(trained, other, given, lcm), rel=1e-4)


def test_only_what_is_trained_moves_and_the_target_follows_it() -> None:
    trained = MarigoldTask(model(patch_codec()), Distillation(ProcessParams(), 7), "fp32")
    teacher, target = trained.objective.beside
    before = {name: each.clone() for name, each in teacher.state_dict().items()}
    (average,) = trained.averages().values()
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], 1e-2)
    expected = {name: each.clone() for name, each in before.items()}
    for _ in range(2):
        trained(**batch(4))["loss"].backward()
        optimizer.step()
        average.update()
        for name, each in trained.model.unet.state_dict().items():
            expected[name] = 0.95 * expected[name] + 0.05 * each
    moved = target.state_dict()
    assert all((each == before[name]).all() for name, each in teacher.state_dict().items())
    assert all((moved[name] - each).abs().max() < 1e-6 for name, each in expected.items())
    assert any((moved[name] != each).any() for name, each in before.items())
    assert not any(name.startswith("objective") for name in trained.state_dict())


def project(root: Path, teacher: Marigold | None = None, **changes: Any) -> Path:
    """A project whose teacher is there, with random weights or as given."""
    marigold = {"noise": RUN, "few": {**LCM, **changes}}
    path = make_project(root, codecs={"patch": CODEC}, marigold=marigold)
    make_codec(load(path), "patch", root)
    made = model(codecs.read_codec(layout.codec(root, "patch"))) if teacher is None else teacher
    families.get("marigold").save(made, layout.model(root, "marigold-noise"), "", {})
    return path


def checkpoint(root: Path) -> Path:
    """The last one of the run."""
    return sorted(layout.checkpoints(root, "marigold-few").iterdir())[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = project(tmp_path_factory.mktemp("few"))
    processes.run_to_end(params, "marigold-few")
    return params.parent


def test_a_run_gives_a_model_of_few_steps_that_diffusers_loads(whole: Path, tmp_path: Path) -> None:
    made = dav2.load(layout.model(whole, "marigold-few"), "cpu", "fp32")
    assert isinstance(made, Marigold) and made.config.how.steps == 2 and made.config.begins == "noise"
    assert LCMScheduler.from_config(made.scheduler).config["original_inference_steps"] == 5
    save_pipeline(made, tmp_path)
    scheduler = LCMScheduler.from_pretrained(tmp_path / "scheduler")
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == [999, 799, 599, 399]
    assert scheduler.config["rescale_betas_zero_snr"] and scheduler.config["prediction_type"] == "v_prediction"
    rgb, back = photograph(40, 52), dav2.load(tmp_path, "cpu", "fp32")
    assert (back.infer_image(rgb, steps=3) == made.infer_image(rgb, steps=3)).all()
    lines = read_lines(layout.training(whole, "marigold-few") / "metrics.jsonl")
    assert len(lines) == 4 and all(line["loss"] > 0 for line in lines)
    evaluations = read_lines(layout.training(whole, "marigold-few") / "evaluations.jsonl")
    assert evaluations[-1]["val_loss"] > 0 and evaluations[-1]["da2k"] is not None
    target, average = (load_file(checkpoint(whole) / f"{name}.safetensors") for name in ("target", "ema"))
    assert {f"unet.{name}" for name in target} == set(average), "both are kept"


def test_a_run_killed_and_resumed_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    params = project(tmp_path)
    ranks = processes.start(params, "marigold-few")
    processes.wait_for_step(params, "marigold-few", 2, ranks)
    processes.stop(ranks, signal.SIGKILL)
    processes.run_to_end(params, "marigold-few")
    for kept in ("model.safetensors", "target.safetensors", "ema.safetensors"):
        ours, theirs = (checkpoint(root) / kept for root in (tmp_path, whole))
        assert ours.read_bytes() == theirs.read_bytes()


def without(made: Marigold, **config: Any) -> Marigold:
    made.config = replace(made.config, **config)
    return made


def few(made: Marigold) -> Marigold:
    made.scheduler = few_steps_config(ProcessParams(), 5)
    return made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda codec: model(codec, quantity=Quantity.DISPARITY), "predicts disparity, this run depth; set target"),
        (lambda codec: without(model(codec), begins="zeros"), "predicts in one step, from no noise"),
        (lambda codec: few(model(codec)), "is itself distilled to a few steps"),
        (lambda codec: model(codec, conditions=0), "denoises photographs and predicts nothing"),
        (lambda codec: refiner(codec), "refines another model's map"),
        (lambda codec: model(codec, ProcessParams(zero_snr=False)), "has rescale_betas_zero_snr False, this run True"),
        (lambda codec: model(patch_codec(6)), "was trained on another codec than patch"),
    ],
)
def test_teachers_that_do_not_fit_are_named(
    make: Callable[[Any], Marigold], message: str, whole: Path, tmp_path: Path
) -> None:
    codec = codecs.read_codec(layout.codec(whole, "patch"))
    path = project(tmp_path, make(codec))
    recipe = build_recipe(load(path), "marigold-few", tmp_path, families.get("marigold"), "fp32")
    with pytest.raises(WeightsError, match=message):
        recipe.task()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "random"}, "objective 'lcm' needs a teacher"),
        ({"start": "models/marigold-none"}, "no run named 'marigold-none'"),
        ({"start": "models/marigold-once"}, "has the objective one_step_x0; only a model of 'diffusion'"),
        ({"target": "disparity"}, "marigold-noise has target depth, this run disparity"),
        ({"codec": "wide"}, "marigold-noise has codec patch, this run wide"),
        ({"process": {"zero_snr": False}}, "has process.zero_snr True, this run False"),
        ({"lcm": {"grid": 7}}, "1000 levels are not cut into 7 equal steps"),
        ({"lcm": {"decay": 1.0}}, "lcm.decay"),
        ({"infer_steps": 6}, "infer_steps is 6, and lcm.grid knows 5 levels"),
        ({"objective": "diffusion", "lcm": {"grid": 4}}, "these settings belong to objective 'lcm'"),
        ({"process": {"prediction": "epsilon", "zero_snr": False}}, "needs process.zero_snr false and objective"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    marigold = {"noise": RUN, "once": {**RUN, "objective": "one_step_x0"}, "few": {**LCM, **change}}
    path = make_project(tmp_path, codecs={"patch": CODEC, "wide": {**CODEC, "channels": 6}}, marigold=marigold)
    with pytest.raises(ParamsError, match=message):
        load(path)
