"""Depth Anything V2 as a family of the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.data.feed.frame_table import Part
from dav2.data.feed.loader import TrainingData
from dav2.families.depth_anything.foreign import load_hugging_face, load_official
from dav2.families.depth_anything.loading import load_encoder
from dav2.families.depth_anything.model import DepthAnything, build, resize_prediction
from dav2.families.depth_anything.preprocess import preprocess
from dav2.families.depth_anything.sizes import PATCH, SIZES
from dav2.families.depth_anything.tasks import DepthTask, MetricTask, RelativeTask
from dav2.families.depth_anything.weights import load_directory
from dav2.families.directory import peek, weights_digest
from dav2.families.family import Family, Predictor
from dav2.params import AugmentParams

if TYPE_CHECKING:
    from dav2.training.recipes import Recipe
    from dav2.training.task import Frames


class DepthAnythingFamily(Family):
    """DINOv2 encoder, DPT decoder; relative depth by the affine-invariant losses, metres by SiLog."""

    name = "depth_anything"
    adopts = ("a published .pth file", "a Hugging Face folder", f"a size ({', '.join(SIZES)})")

    def adopt(self, source: str, max_depth: float | None) -> DepthAnything | None:
        path = Path(source)
        if source in SIZES:
            return build(source, max_depth)
        if path.is_file():
            return load_official(path, max_depth)
        if path.is_dir() and peek(path).get("model_type") == "depth_anything":
            return load_hugging_face(path)
        return None

    def load(self, path: Path) -> DepthAnything:
        return load_directory(path)

    def predictor(self, model: Any) -> DepthPredictor:
        return DepthPredictor(model)

    def task(self, recipe: Recipe) -> DepthTask:
        torch.manual_seed(recipe.seed)
        settings = recipe.settings
        if recipe.run.metric is not None:
            return MetricTask(_metric_model(recipe), settings.loss, recipe.precision)
        reference = None
        if settings.loss.feature > 0 and settings.loss.feature_encoder is not None:
            reference = load_encoder(recipe.root / settings.loss.feature_encoder)
        return RelativeTask(_relative_model(recipe), settings.loss, recipe.precision, reference)

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        settings = recipe.settings
        batch = settings.batch // settings.optim.accumulate
        return _frames(recipe, recipe.parts, batch, rank, world, settings.augment, workers)

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        if not recipe.validation:
            return None
        return _frames(recipe, recipe.validation, batch, rank, world, AugmentParams(flip=0.0), 0)

    def origins(self, recipe: Recipe) -> dict[str, str]:
        files = [recipe.settings.encoder_weights, recipe.settings.loss.feature_encoder]
        return {Path(name).name: weights_digest(recipe.root / name) for name in files if name is not None}

    @property
    def exports(self) -> Mapping[str, Callable[[Any, Path], str]]:  # type: ignore[override]
        """ONNX in two precisions, ``torch.export``, the published ``.pth``, a Hugging Face folder, the encoder."""
        from dav2.families.depth_anything import export, foreign

        return {
            "onnx": partial(_checked, export.export_onnx),
            "onnx-fp16": partial(_checked, partial(export.export_onnx, dtype=torch.float16)),
            "torch": partial(_checked, export.export_torch),
            "official": partial(_silent, foreign.save_official),
            "hugging-face": partial(_silent, foreign.save_hugging_face),
            "encoder": partial(_silent, foreign.save_encoder),
        }


class DepthPredictor(Predictor):
    """One model under test."""

    def __init__(self, model: DepthAnything) -> None:
        self.model = model
        self.quantity = model.quantity
        self.device = next(model.parameters()).device

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        size = round(self.model.config.input_size * enlarge / PATCH) * PATCH
        return torch.from_numpy(preprocess(rgb, size))

    def predict(self, batch: Tensor) -> Tensor:
        return self.model.as_quantity(self.model(batch).float())

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return resize_prediction(prediction, shape)

    def example(self) -> Tensor:
        side = self.model.config.input_size
        return torch.zeros(1, 3, side, side, device=self.device)

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        return {
            "size": config.size,
            "max_depth": config.max_depth,
            "input_size": config.input_size,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }


def _frames(
    recipe: Recipe, parts: Any, batch: int, rank: int, world: int, augment: AugmentParams, workers: int
) -> TrainingData:
    settings, metric = recipe.settings, recipe.run.metric
    found: list[Part] = list(parts)
    bounds: dict[str, Any] = {} if metric is None else {"min_depth": metric.min_depth, "max_depth": metric.max_depth}
    return TrainingData(
        found,
        crop=settings.crop,
        batch=batch,
        seed=recipe.seed,
        rank=rank,
        world=world,
        target=recipe.run.quantity.value,
        augment=augment,
        workers=workers,
        **bounds,
    )


def _relative_model(recipe: Recipe) -> DepthAnything:
    settings = recipe.settings
    model = _used_at(build(settings.size, target=recipe.run.quantity), settings.input_size)
    if settings.encoder_weights is not None:
        encoder = load_encoder(recipe.root / settings.encoder_weights, settings.size)
        model.encoder.load_state_dict(encoder.state_dict())
    return model


def _metric_model(recipe: Recipe) -> DepthAnything:
    settings = recipe.run.metric
    assert settings is not None
    model = _used_at(build(settings.size, max_depth=settings.max_depth), settings.input_size)
    student = load_directory(recipe.parents["student"])
    if settings.load == "all":
        model.load_state_dict(student.state_dict())
        # The student's head grows with nearness, a metric one with distance: turned, it begins with the right order.
        for parameter in model.decoder.head3.parameters():
            parameter.data.neg_()
    else:
        model.encoder.load_state_dict(student.encoder.state_dict())
    return model.train()


def _used_at(model: DepthAnything, input_size: int | None) -> DepthAnything:
    """The model with another native input size, where one is given."""
    if input_size is not None:
        model.config = replace(model.config, input_size=input_size)
    return model


def _checked(write: Callable[[DepthAnything, Path], float], model: DepthAnything, path: Path) -> str:
    return f"within {write(model, path):.1e} of the source at three shapes"


def _silent(write: Callable[[DepthAnything, Path], object], model: DepthAnything, path: Path) -> str:
    write(model, path)
    return ""
