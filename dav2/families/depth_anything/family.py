"""Depth Anything V2 as a family of the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.data.feed.frame_table import Part
from dav2.data.feed.loader import TrainingData
from dav2.families.depth_anything.dinov3_files import LICENCE as DINOV3_LICENCE
from dav2.families.depth_anything.dinov3_files import is_dinov3_folder
from dav2.families.depth_anything.encoder import Encoder
from dav2.families.depth_anything.foreign import holds_dinov3, load_hugging_face, load_official
from dav2.families.depth_anything.loading import load_encoder
from dav2.families.depth_anything.model import DepthAnything, build, check_input_size, resize_prediction
from dav2.families.depth_anything.preprocess import network_shape, preprocess
from dav2.families.depth_anything.sizes import SIZES, get_size
from dav2.families.depth_anything.start import begin
from dav2.families.depth_anything.tasks import DepthTask, MetricTask, NormalsTask, RelativeTask
from dav2.families.depth_anything.weights import (
    config_json,
    config_of,
    empty_model,
    load_directory,
    save_directory,
)
from dav2.families.directory import WeightsError, peek, weights_digest
from dav2.families.family import Family, Predictor
from dav2.families.licence_text import needed_licence
from dav2.families.teaching import Teaching
from dav2.maps import Quantity
from dav2.params import AugmentParams

if TYPE_CHECKING:
    from dav2.training.recipes import Recipe
    from dav2.training.task import Frames


class DepthAnythingFamily(Family):
    """DINOv2 or DINOv3 encoder, DPT decoder; relative depth by the affine-invariant losses, metres by SiLog, normals by
    their angle."""

    name = "depth_anything"
    adopts = ("a published .pth file", "a Hugging Face folder", f"a size ({', '.join(SIZES)})")

    def adopt(self, source: str, max_depth: float | None) -> DepthAnything | None:
        path = Path(source)
        if source in SIZES:
            return build(source, max_depth)
        if is_dinov3_folder(path):
            raise WeightsError(f"{path} is a DINOv3 encoder alone, and no model of depth; name it with 'encoder'")
        if path.is_file():
            return load_official(path, max_depth)
        if path.is_dir() and peek(path).get("model_type") == "depth_anything":
            return load_hugging_face(path)
        return None

    def described(self, model: Any) -> dict[str, Any]:
        return config_json(model.config)

    def empty(self, document: Mapping[str, object]) -> DepthAnything:
        return empty_model(config_of(document, "the model's description"))

    def adopt_encoder(self, source: str) -> DepthAnything | None:
        encoder, size = load_encoder(source)
        torch.manual_seed(0)
        model = build(size)
        model.encoder.load_state_dict(encoder.state_dict())
        return model

    def asks_for_licence(self, source: str) -> str | None:
        return DINOV3_LICENCE if holds_dinov3(Path(source)) else None

    def load(self, path: Path) -> DepthAnything:
        return load_directory(path)

    def save(self, model: Any, folder: Path, card: str, extra: dict[str, Any]) -> None:
        save_directory(model, folder, card, extra)

    def predictor(self, model: Any) -> DepthPredictor:
        return DepthPredictor(model)

    def check_input_size(self, model: Any, input_size: int) -> None:
        check_input_size(input_size, model.config.patch)

    def teaching(self, model: Any, precision: Literal["fp32", "bf16"], device: torch.device) -> DepthTeaching:
        return DepthTeaching(model.to(device), precision)

    def task(self, recipe: Recipe) -> DepthTask:
        torch.manual_seed(recipe.seed)
        settings, metric = recipe.settings, recipe.run.metric
        model = build(settings.size, metric.max_depth) if metric else build(settings.size, target=recipe.run.quantity)
        began = begin(_used_at(model, settings.input_size), recipe.start, settings.take)
        if metric is not None:
            task: DepthTask = MetricTask(model.train(), settings.loss, recipe.precision)
        elif recipe.run.quantity is Quantity.NORMALS:
            task = NormalsTask(model.train(), settings.loss, recipe.precision)
        else:
            task = RelativeTask(model, settings.loss, recipe.precision, _reference(recipe))
        task.began = began
        return task

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Frames:
        settings = recipe.settings
        batch = settings.batch // settings.optim.accumulate
        # Where a GPU trains it has time for the colours, and the cores have none.
        raw = torch.cuda.is_available()
        return _frames(recipe, recipe.parts, batch, rank, world, settings.augment, workers, raw)

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Frames | None:
        if not recipe.validation:
            return None
        return _frames(recipe, recipe.validation, batch, rank, world, AugmentParams(flip=0.0), 0)

    def origins(self, recipe: Recipe) -> dict[str, str]:
        file = recipe.settings.loss.feature_encoder
        return {} if file is None else {Path(file).name: weights_digest(recipe.root / file)}

    @property
    def exports(self) -> Mapping[str, Callable[[object, Path], str]]:  # type: ignore[override]
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

    @property
    def calibrated(  # type: ignore[override]
        self,
    ) -> Mapping[str, Callable[[Any, Path, Sequence[NDArray[np.uint8]]], str]]:
        """ONNX in 8 bits."""
        from dav2.families.depth_anything.quantise import export_int8

        return {"onnx-int8": export_int8}


class DepthPredictor(Predictor):
    """One model under test."""

    def __init__(self, model: DepthAnything) -> None:
        self.model = model
        self.quantity = model.quantity
        self.device = next(model.parameters()).device

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        patch = self.model.config.patch
        size = round(self.model.config.input_size * enlarge / patch) * patch
        return torch.from_numpy(preprocess(rgb, size, patch))

    def predict(self, batch: Tensor) -> Tensor:
        return self.model.as_quantity(self.model(batch).float())

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return resize_prediction(prediction, shape)

    def example(self) -> Tensor:
        side = self.model.config.input_size
        return torch.zeros(1, 3, side, side, device=self.device)

    def describe(self) -> dict[str, object]:
        config = self.model.config
        return {
            "size": config.size,
            "max_depth": config.max_depth,
            "input_size": config.input_size,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
        }


class DepthTeaching(Teaching):
    """One model that labels, in the precision asked for; the mean of its last tokens says what a photograph shows."""

    def __init__(self, model: DepthAnything, precision: Literal["fp32", "bf16"]) -> None:
        super().__init__(model, DepthPredictor(model))
        self.features = get_size(model.config.size).dim
        self.multiple = model.config.patch
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._network = model.to(dtype=self._dtype).eval().requires_grad_(False)

    def shape(self, height: int, width: int, input_size: int) -> tuple[int, int]:
        return network_shape(height, width, input_size, self.multiple)

    def prepare(self, rgb: NDArray[np.uint8], input_size: int) -> NDArray[np.float32]:
        return preprocess(rgb, input_size, self.multiple)

    def predict(self, batch: Tensor, keys: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        prediction, tokens = self._network.forward_features(batch.to(self._dtype))
        return self._network.as_quantity(prediction.float()), tokens.float().mean(1)


def _frames(
    recipe: Recipe,
    parts: Any,
    batch: int,
    rank: int,
    world: int,
    augment: AugmentParams,
    workers: int,
    raw: bool = False,
) -> TrainingData:
    settings, metric = recipe.settings, recipe.run.metric
    found: list[Part] = list(parts)
    what: dict[str, Any] = {"target": recipe.run.quantity.value}
    if recipe.run.quantity is Quantity.NORMALS:
        what = {"layers": (Quantity.NORMALS,)}
    elif metric is not None:
        what |= {"min_depth": metric.min_depth, "max_depth": metric.max_depth}
    return TrainingData(
        found,
        crop=settings.crop,
        batch=batch,
        seed=recipe.seed,
        rank=rank,
        world=world,
        augment=augment,
        workers=workers,
        raw=raw,
        **what,
    )


def _reference(recipe: Recipe) -> Encoder | None:
    """The frozen encoder for feature alignment, where the loss asks for one."""
    loss = recipe.settings.loss
    if loss.feature == 0 or loss.feature_encoder is None:
        return None
    path = recipe.root / loss.feature_encoder
    if holds_dinov3(path):
        needed_licence(path, None, DINOV3_LICENCE)
    encoder, own = load_encoder(path)[0], get_size(recipe.settings.size)
    if encoder.patch != own.patch:
        raise WeightsError(
            f"{recipe.name}: loss.feature_encoder has patches of {encoder.patch} pixels, the run's encoder of "
            f"{own.patch}, so that their features lie at different places; name one of the same kind"
        )
    return encoder


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
