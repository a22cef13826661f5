"""What a run's network begins as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dav2 import families, layout
from dav2.families.directory import WeightsError
from dav2.families.loading import load_directory
from dav2.families.marigold import codec as codecs
from dav2.families.marigold import surgery
from dav2.families.marigold.config import How, MarigoldConfig
from dav2.families.marigold.modalities import Modality, modality
from dav2.families.marigold.model import Marigold
from dav2.families.marigold.objectives import Objective
from dav2.families.marigold.process import few_steps, few_steps_config, scheduler_config
from dav2.families.marigold.refiner import Refiner
from dav2.families.marigold.resolution import AUTHORS_SIDE
from dav2.families.marigold.sizes import TOKENS, random_network
from dav2.families.marigold.strategies import OBJECTIVES
from dav2.families.marigold.task import MarigoldTask

if TYPE_CHECKING:
    from diffusers import ModelMixin, UNet2DConditionModel

    from dav2.params import MarigoldParams
    from dav2.training.recipes import Recipe, Start


def begin(recipe: Recipe, settings: MarigoldParams) -> MarigoldTask:
    """The task of a run, its network drawn from torch's generator as it stands or taken from its start.

    Raises:
        WeightsError: the codec is missing or not that of the start, or the start is of another size.
    """
    codec = codecs.read_codec(layout.codec(recipe.root, settings.codec))
    latent = codecs.width(codec)
    base = None
    if recipe.start is None:
        unet, began = random_network(settings.size, latent), ""
        prompt = torch.zeros(1, TOKENS, int(unet.config["cross_attention_dim"]))
    else:
        base = load_directory(recipe.start.folder)
        _fits(recipe, settings, base, codec)
        if settings.objective == "lcm":
            _teaches(recipe, settings, base)
        unet, prompt, began = base.unet, base.prompt, "all of its network"
    targets = modality(settings.target)
    objective = OBJECTIVES[settings.objective](settings.process, recipe.seed, settings.refine, settings.lcm)
    try:
        changed = surgery.fit(unet, latent, objective.conditions, len(targets.images) if objective.conditions else 1)
    except ValueError as error:
        raise WeightsError(f"{recipe.name}: {error}") from None
    if recipe.refined is not None:
        model: Marigold = refiner(recipe, settings, (unet, codec, prompt), recipe.refined)
        if not isinstance(base, Refiner):
            surgery.silence(unet)
            changed = f"{changed}; its last layer begins at zero" if changed else "its last layer begins at zero"
        return _task(model, objective, recipe, began, changed)
    config = MarigoldConfig(
        size=settings.size,
        quantity=targets.layers[0],
        input_size=AUTHORS_SIDE if settings.input_size is None else settings.input_size,
        how=How(steps=settings.infer_steps, ensemble=settings.infer_ensemble),
        begins="zeros" if objective.begins_from_zeros else "noise",
        adapted=objective.conditions > 0,
        layers=() if targets.of_depth else targets.layers,
        gamma_coded=targets.coded,
    )
    distilled = settings.objective == "lcm"
    process = few_steps_config(settings.process, settings.lcm.grid) if distilled else scheduler_config(settings.process)
    model = Marigold(unet, codec, process, prompt, config)
    return _task(model, objective, recipe, began, changed)


def _task(model: Marigold, objective: Objective, recipe: Recipe, began: str, changed: str) -> MarigoldTask:
    task = MarigoldTask(model.train(), objective, recipe.precision)
    if began:
        task.began = f"{began}; {changed}" if changed else began
    return task


def _fits(recipe: Recipe, settings: MarigoldParams, base: UNet2DConditionModel, codec: ModelMixin) -> None:
    """Refuse a start that is of another family, size or codec."""
    where = f"{recipe.name}: its start {settings.start}"
    if not isinstance(base, Marigold):
        raise WeightsError(f"{where} is no model of the family marigold")
    if base.config.size != settings.size:
        raise WeightsError(f"{where} is of size {base.config.size}, this run of {settings.size}; set both equal")
    ours, theirs = codec.state_dict(), base.codec.state_dict()
    alike = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    if not alike:
        raise WeightsError(f"{where} was trained on another codec than {settings.codec}; give this run that one")


def _teaches(recipe: Recipe, settings: MarigoldParams, teacher: Marigold) -> None:
    """Refuse a teacher that is no diffusion model, or of another target or process than this run."""
    where = f"{recipe.name}: its teacher {settings.start}"
    unfit = {
        "denoises photographs and predicts nothing": not teacher.config.adapted,
        "refines another model's map": isinstance(teacher, Refiner),
        "predicts in one step, from no noise": teacher.config.begins == "zeros",
        "is itself distilled to a few steps": few_steps(teacher.scheduler),
    }
    for why, holds in unfit.items():
        if holds:
            raise WeightsError(f"{where} {why}; only a model of the objective 'diffusion' can be distilled")
    if teacher.modality != modality(settings.target):
        theirs, ours = (_named(each) for each in (teacher.modality, modality(settings.target)))
        raise WeightsError(f"{where} predicts {theirs}, this run {ours}; set target to what the teacher predicts")
    process = scheduler_config(settings.process)
    for name in ("prediction_type", "rescale_betas_zero_snr", "beta_start", "beta_end", "beta_schedule"):
        if (theirs := teacher.scheduler.get(name, process[name])) != process[name]:
            raise WeightsError(f"{where} has {name} {theirs}, this run {process[name]}; set process to the teacher's")


def _named(what: Modality) -> str:
    coded = f" ({', '.join(what.coded)} as x^(1/2.2))" if what.coded else ""
    return f"{', '.join(what.layers)}{coded}"


def refiner(
    recipe: Recipe, settings: MarigoldParams, parts: tuple[ModelMixin, ModelMixin, Tensor], refined: Start
) -> Refiner:
    """The model of a run that refines another's map; ``parts`` are network, codec and prompt.

    Raises:
        WeightsError: what it refines predicts something else, or cannot see the run's crops as they are.
    """
    unet, codec, prompt = parts
    guide = load_directory(refined.folder)
    where = f"{recipe.name}: what it refines, {settings.refines},"
    if guide.quantity.value != settings.target:
        raise WeightsError(f"{where} predicts {guide.quantity.value}; set target to that, not to {settings.target}")
    predictor = families.get(guide.family).predictor(guide)
    native = int(predictor.describe()["input_size"])
    config = MarigoldConfig(
        size=settings.size, quantity=guide.quantity, input_size=native, begins="zeros", adapted=True
    )
    for height, width in sorted(settings.shapes):
        given = predictor.prepare(np.zeros((height, width, 3), np.uint8), min(height, width) / native)
        if tuple(given.shape[-2:]) != (height, width):
            raise WeightsError(
                f"{where} sees a crop of {height} × {width} at {given.shape[-2]} × {given.shape[-1]} pixels; give "
                f"crops that it takes as they are, best of its own size, {native}"
            )
    return Refiner(unet, codec, scheduler_config(settings.process), prompt, config, guide)
