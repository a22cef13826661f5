"""Recipes: settings and a run's name become data, a task to train, and a fingerprint of all that decides the result.

Runs are named ``teacher``, ``student-<key>`` and ``metric-<range>``. The teacher sees synthetic images only, because
real labels are coarse and wrong on thin and transparent things; students see pseudo-labelled photographs only; metric
models start from a student and see metres (arXiv 2406.09414, sections 3 to 5).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dav2 import machine
from dav2.data.feed.frame_table import Part
from dav2.data.store.manifest import manifest_digest, read_table
from dav2.params import AugmentParams, MetricParams, Params, RecipeParams, StudentParams
from dav2.training.errors import TrainingError

if TYPE_CHECKING:
    from dav2.families.depth_anything.model import DepthAnything

FORMAT = 2
"""Raised when a change of the code changes what a run with the same settings gives."""


@dataclass(frozen=True)
class Recipe:
    """One training run, ready to be built.

    Attributes:
        run: its name.
        settings: its section of ``params.yaml``.
        parts: what it learns from.
        validation: what it is measured on; empty where no source has a ``val`` split.
        target: what the loader gives, ``disparity`` or ``depth``.
        precision: ``fp32`` or ``bf16``.
        seed: of weights, order and augmentation.
        root: the project's folder, which paths of weights in ``settings`` are relative to.
        parents: model directories this run starts from, by role.
    """

    run: str
    settings: RecipeParams
    parts: Sequence[Part]
    validation: Sequence[Part]
    target: str
    precision: str
    seed: int
    root: Path = Path()
    parents: dict[str, Path] = field(default_factory=dict)

    @property
    def metric(self) -> bool:
        """Whether the model predicts metres."""
        return isinstance(self.settings, MetricParams)

    @property
    def depth_range(self) -> dict[str, Any]:
        """Range of target depths in metres that count, as arguments of the loader."""
        if isinstance(self.settings, MetricParams):
            return {"min_depth": self.settings.min_depth, "max_depth": self.settings.max_depth}
        return {}

    def data(self, rank: int, world: int, workers: int) -> Any:
        """Training batches of one rank, one for each accumulation step."""
        from dav2.data.feed.loader import TrainingData

        settings = self.settings
        shares = world * settings.optim.accumulate
        if settings.batch % shares:
            raise TrainingError(
                f"{self.run}: batch {settings.batch} cannot be split over {world} ranks × {settings.optim.accumulate} "
                f"accumulation steps; make it a multiple of {shares}"
            )
        data = TrainingData(
            self.parts,
            crop=settings.crop,
            batch=settings.batch // settings.optim.accumulate,
            seed=self.seed,
            rank=rank,
            world=world,
            target=self.target,
            augment=settings.augment,
            workers=workers,
            **self.depth_range,
        )
        if len(data) < settings.batch:
            raise TrainingError(
                f"{self.run}: {len(data)} training frames are fewer than one batch of {settings.batch}; add data to "
                f"{', '.join(settings.sources)} or lower the batch"
            )
        return data

    def validation_data(self, batch: int, rank: int, world: int) -> Any:
        """Fixed crops of held-out frames, without augmentation; ``None`` where there are none."""
        from dav2.data.feed.loader import TrainingData

        if not self.validation:
            return None
        return TrainingData(
            self.validation,
            crop=self.settings.crop,
            batch=batch,
            seed=self.seed,
            rank=rank,
            world=world,
            target=self.target,
            augment=AugmentParams(flip=0.0),
            **self.depth_range,
        )

    def task(self) -> Any:
        """The module to train; the same weights at every call."""
        import torch

        from dav2.families.depth_anything.tasks import MetricTask, RelativeTask

        torch.manual_seed(self.seed)
        settings = self.settings
        if isinstance(settings, MetricParams):
            return MetricTask(self._metric_model(settings), settings.loss, self.precision)
        model = self._relative_model()
        reference = None
        if settings.loss.feature > 0 and settings.loss.feature_encoder is not None:
            from dav2.families.depth_anything.loading import load_encoder

            reference = load_encoder(self.root / settings.loss.feature_encoder)
        return RelativeTask(model, settings.loss, self.precision, reference)

    def _relative_model(self) -> Any:
        from dav2.families.depth_anything.model import build

        model = self._with_input_size(build(self.settings.size))
        if self.settings.encoder_weights is not None:
            from dav2.families.depth_anything.loading import load_encoder

            encoder = load_encoder(self.root / self.settings.encoder_weights, self.settings.size)
            model.encoder.load_state_dict(encoder.state_dict())
        return model

    def _with_input_size(self, model: DepthAnything) -> DepthAnything:
        if self.settings.input_size is not None:
            model.config = replace(model.config, input_size=self.settings.input_size)
        return model

    def _metric_model(self, settings: MetricParams) -> Any:
        from dav2.families.depth_anything.model import build
        from dav2.families.depth_anything.weights import load_directory

        model = self._with_input_size(build(settings.size, max_depth=settings.max_depth))
        student = load_directory(self.parents["student"])
        if settings.load == "all":
            model.load_state_dict(student.state_dict())
        else:
            model.encoder.load_state_dict(student.encoder.state_dict())
        return model.train()

    def origins(self) -> dict[str, Any]:
        """Digests of everything the run learns from, besides its settings."""
        from dav2.families.depth_anything.weights import weights_digest

        data = {part.shards: manifest_digest(part.shards) for part in (*self.parts, *self.validation)}
        labels = {part.labels: manifest_digest(part.labels) for part in self.parts if part.labels}
        parents = {role: weights_digest(path) for role, path in self.parents.items()}
        files = [self.settings.encoder_weights, self.settings.loss.feature_encoder]
        weights = {Path(name).name: weights_digest(self.root / name) for name in files if name is not None}
        # By the folder's name, not its path: moving a project must not make its models stale.
        return {
            "data": {Path(path).name: digest for path, digest in data.items()},
            "labels": {Path(path).name: digest for path, digest in labels.items()},
            "parents": parents,
            "weights": weights,
        }

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the weights: settings, data, parents, seed, precision.

        When checkpoints are written and how many ranks share the batch is not part of it.
        """
        decisive = {
            "format": FORMAT,
            "run": self.run,
            "settings": self.settings.model_dump(mode="json", exclude={"checkpoint"}),
            "precision": self.precision,
            "seed": self.seed,
            **self.origins(),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def build_recipe(params: Params, run: str, root: Path, precision: str | None = None) -> Recipe:
    """The recipe of a run.

    Args:
        params: all settings.
        run: ``teacher``, ``student-<key>`` or ``metric-<range>``.
        root: the project's folder, below which data and models lie.
        precision: ``fp32`` or ``bf16``; ``None`` is what ``compute.precision`` means on this machine.

    Raises:
        TrainingError: a source or a parent model is not what this kind of run learns from, or is not there.
        ParamsError: no such run.
        ManifestError: a data set has not been ingested.
    """
    settings = params.recipe(run)
    target = "depth" if isinstance(settings, MetricParams) or settings.loss.target != "disparity" else "disparity"
    parents: dict[str, Path] = {}
    if isinstance(settings, StudentParams):
        if settings.loss.target != params.teacher.loss.target:
            raise TrainingError(
                f"{run}: loss.target is {settings.loss.target}, but its pseudo-labels come from a teacher trained on "
                f"{params.teacher.loss.target}; set both alike"
            )
        target = "disparity"
        parts = [_part(params, name, root, settings.labels) for name in settings.sources]
        parts += [_part(params, name, root) for name in settings.synthetic]
        held_out = params.teacher.sources
    else:
        _refuse_real_labels(params, run, settings)
        parts = [_part(params, name, root) for name in settings.sources]
        held_out = settings.sources
    if isinstance(settings, MetricParams):
        parents["student"] = root / "artifacts" / "models" / f"student-{settings.student}"
        if not (parents["student"] / "model.safetensors").exists():
            raise TrainingError(f"{run} starts from student-{settings.student}, which is not trained; train it first")
    return Recipe(
        run=run,
        settings=settings,
        parts=parts,
        validation=_held_out(params, held_out, root),
        target=target,
        precision=precision or machine.precision(params.compute.precision).name,
        seed=params.seed,
        root=root,
        parents=parents,
    )


def _refuse_real_labels(params: Params, run: str, settings: RecipeParams) -> None:
    for name in settings.sources:
        group = params.data_sets[name].group
        if group != "synthetic":
            raise TrainingError(
                f"{run}: source '{name}' is {group}; labels of real images are coarse and noisy, so this recipe takes "
                f"synthetic sources only: {', '.join(params.group('synthetic'))}"
            )


def _part(params: Params, name: str, root: Path, labels: str | None = None) -> Part:
    folder = None if labels is None else str(root / params.labels(name, labels))
    return Part(str(root / params.shards(name)), folder, "train")


def _held_out(params: Params, names: Sequence[str], root: Path) -> list[Part]:
    """Validation parts of the sources that have any."""
    parts = []
    for name in names:
        shards = root / params.shards(name)
        if (shards / "manifest.parquet").exists() and "val" in read_table(shards, ["split"])[
            "split"
        ].unique().to_pylist():
            parts.append(Part(str(shards), None, "val"))
    return parts
