"""Marigold as a family of the house. diffusers is imported when a model is, not when families are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import families, layout
from dav2.data.feed.mixture import Portion
from dav2.families.directory import WeightsError, weights_digest
from dav2.families.family import Family, Model, Predictor
from dav2.families.marigold.modalities import check_reduction
from dav2.files import sha256_file
from dav2.maps import Maps, Quantity
from dav2.params import AugmentParams, MarigoldParams
from dav2.params.base import NOTHING

if TYPE_CHECKING:
    from dav2.families.marigold.model import Marigold
    from dav2.families.marigold.task import MarigoldTask
    from dav2.training.recipes import Recipe
    from dav2.training.task import Frames


class MarigoldFamily(Family):
    """A denoiser on a codec's latents: depth of any kind up to scale and shift, normals, or layers of intrinsics."""

    name = "marigold"
    adopts = ("a folder of diffusers' Marigold or Stable Diffusion",)

    def adopt(self, source: str, max_depth: float | None) -> Marigold | None:
        path = Path(source)
        if not (path / "model_index.json").is_file():
            return None
        from dav2.families.marigold.official import load_pipeline

        return load_pipeline(path)

    def load(self, path: Path) -> Marigold:
        from dav2.families.marigold.weights import load_directory

        return load_directory(path)

    def save(self, model: Any, folder: Path, card: str, extra: dict[str, Any]) -> None:
        from dav2.families.marigold.weights import save_directory

        save_directory(model, folder, card, extra)

    def predictor(self, model: Any) -> Predictor:
        from dav2.families.marigold.refiner import Refiner, RefinerPredictor

        return RefinerPredictor(model) if isinstance(model, Refiner) else MarigoldPredictor(model)

    def check_input_size(self, model: object, input_size: int) -> None:
        from dav2.families.marigold.refiner import Refiner
        from dav2.families.marigold.resolution import check_side

        if isinstance(model, Refiner):
            families.of_model(model.guide).check_input_size(model.guide, input_size)
        else:
            check_side(input_size)

    def set_sampling(
        self, model: Any, steps: int | None, ensemble: int | None, seed: int | None, reduction: str | None = None
    ) -> None:
        how = model.how(steps=steps, ensemble=ensemble, seed=seed, reduction=reduction)
        check_reduction(how.reduction, model.modality.layers)
        if model.config.begins == "zeros" and (how.steps > 1 or how.ensemble > 1):
            raise ValueError(
                "this model predicts in one step and from no noise; --steps and --ensemble cannot change that"
            )
        model.config = replace(model.config, how=how)

    def infer_part(
        self,
        model: Model,
        rgb: NDArray[np.uint8],
        place: tuple[int, int],
        whole: tuple[int, int],
        input_size: int | None = None,
    ) -> Maps[NDArray[np.float32]]:
        from dav2.families.marigold.model import Marigold
        from dav2.families.marigold.refiner import Refiner

        if not isinstance(model, Marigold) or isinstance(model, Refiner):  # which begins from no noise
            return super().infer_part(model, rgb, place, whole, input_size)
        return model.infer_part(rgb, place, whole, input_size)

    def task(self, recipe: Recipe) -> MarigoldTask:
        from dav2.families.marigold.start import begin

        torch.manual_seed(recipe.seed)
        return begin(recipe, settings_of(recipe))

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        settings = recipe.settings
        batch = settings.batch // settings.optim.accumulate
        if settings_of(recipe).latents != NOTHING:
            from dav2.families.marigold.latents import kept_latents

            return kept_latents(recipe, settings_of(recipe), self.origins(recipe)["codec"], batch, rank, world)
        mix = settings_of(recipe).mix
        portions = [Portion(mix[name].share, mix[name].crop) for name in settings.sources] if mix else []
        return _frames(
            recipe, recipe.parts, batch, rank, world, settings.augment, workers, portions, settings_of(recipe).views
        )

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        if not recipe.validation:
            return None
        return _frames(recipe, recipe.validation, batch, rank, world, AugmentParams(flip=0.0), 0)

    def origins(self, recipe: Recipe) -> dict[str, str]:
        folder = layout.codec(recipe.root, settings_of(recipe).codec)
        return {"codec": codec_digest(folder)}

    @property
    def exports(self) -> Mapping[str, Callable[[Any, Path], str]]:  # type: ignore[override]
        """A folder of diffusers' ``MarigoldDepthPipeline``."""
        from dav2.families.marigold.official import save_pipeline

        return {"diffusers": save_pipeline}


class MarigoldPredictor(Predictor):
    """One model under test, at its own steps and ensemble; every photograph begins from the noise of one seed."""

    def __init__(self, model: Marigold) -> None:
        self.model = model
        self.quantity, self.device = model.quantity, model.device

    @property
    def layers(self) -> tuple[Quantity, ...]:
        return self.model.modality.layers

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        from dav2.families.marigold.resolution import to_network

        side = self.model.config.input_size or max(rgb.shape[:2])
        if enlarge != 1.0 or self.model.config.input_size:
            factor = self.model.factor
            side = max(factor, round(side * enlarge / factor) * factor)
        return to_network(rgb, side, self.model.factor)[0]

    def predict(self, batch: Tensor) -> Tensor:
        how = self.model.config.how
        starts = self.model.starts((batch.shape[-2], batch.shape[-1]), how)
        members = self.model.members(batch.float(), starts, how.steps)
        return torch.stack([self.model.merged(each, how.reduction)[0] for each in members])

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        from dav2.families.marigold.resolution import enlarged, without_margin

        side = self.model.config.input_size
        inside = without_margin(prediction, shape, side, self.model.factor)
        modality = self.model.modality
        return enlarged(inside, shape) if modality.of_depth else modality.resized(inside, shape)

    def example(self) -> Tensor:
        from dav2.families.marigold.resolution import AUTHORS_SIDE

        side = self.model.config.input_size or AUTHORS_SIDE
        return torch.zeros(1, 3, side, side, device=self.device)

    def describe(self) -> dict[str, object]:
        from dav2.families.marigold.model import about

        how = self.model.config.how
        return about(self.model, how.steps, how.ensemble)


def settings_of(recipe: Recipe) -> MarigoldParams:
    """The run's settings, of this family's kind.

    Raises:
        WeightsError: the run stands in a section for another kind.
    """
    if recipe.run.marigold is None:
        raise WeightsError(f"{recipe.name}: models of the family marigold are trained under 'marigold' in params.yaml")
    return recipe.run.marigold


def codec_digest(folder: Path) -> str:
    """SHA-256 of a codec, over its configuration and weights.

    Raises:
        WeightsError: it is not there.
    """
    config = folder / layout.CONFIG
    if not config.is_file():
        raise WeightsError(f"{folder} holds no codec; 'dvc repro codec@{folder.name}' makes it")
    weights = next((each for each in sorted(folder.glob("*.safetensors"))), None)
    return sha256_file(config)[:32] + (weights_digest(weights)[:32] if weights else "")


def _frames(
    recipe: Recipe,
    parts: Any,
    batch: int,
    rank: int,
    world: int,
    augment: AugmentParams,
    workers: int,
    mix: Sequence[Portion] = (),
    views: int = 0,
) -> Frames:
    from dav2.families.marigold.frames import MapData

    settings = settings_of(recipe)
    make = partial(MapData, rank=rank, world=world, workers=workers, seed=recipe.seed, max_depth=settings.max_depth)
    return make(
        list(parts), crop=settings.crop, batch=batch, target=settings.target, augment=augment, mix=mix, views=views
    )
