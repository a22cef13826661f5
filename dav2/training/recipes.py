"""Recipes: a run becomes data, a task to train, and a fingerprint of all that decides the result.

The teacher sees synthetic images only, because real labels are coarse and wrong on thin and transparent things;
students see pseudo-labelled photographs only; metric models start from a student and see metres (arXiv 2406.09414,
sections 3 to 5). What the task is, and what its batches hold, is the family's to say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dav2 import layout, machine
from dav2.data.feed.frame_table import Part
from dav2.data.store.manifest import MANIFEST, manifest_digest, read_table
from dav2.documents import DocumentError, Origin
from dav2.files import sha256_file
from dav2.maps import Quantity
from dav2.params import NamedTeacherParams, Params, RecipeParams
from dav2.runs import INITIAL, REFINED, Run, get_run
from dav2.training.errors import TrainingError
from dav2.training.task import Frames, Task, Trains


@dataclass(frozen=True)
class Start:
    """A model that a run begins from.

    Attributes:
        folder: its model directory.
        digest: sha256 of its weights.
        encoder_only: nothing but its encoder means anything.
    """

    folder: Path
    digest: str
    encoder_only: bool = False


@dataclass(frozen=True)
class Recipe:
    """One training run, ready to be built.

    Attributes:
        run: which one.
        family: brings the task and its batches.
        parts: what it learns from.
        validation: what it is measured on; empty where no source has a ``val`` split.
        precision: ``fp32`` or ``bf16``.
        seed: of weights, order and augmentation.
        root: the project's folder, which paths of weights in ``settings`` are relative to.
        start: what its weights begin as; ``None`` is a random draw.
        refined: the model whose map it corrects, if it does.
    """

    run: Run
    family: Trains
    parts: Sequence[Part]
    validation: Sequence[Part]
    precision: str
    seed: int
    root: Path = Path()
    start: Start | None = None
    refined: Start | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def settings(self) -> RecipeParams:
        """The run's section of ``params.yaml``."""
        return self.run.settings

    def data(self, rank: int, world: int, workers: int) -> Frames:
        """Training batches of one rank, one for each accumulation step.

        Raises:
            TrainingError: the batch cannot be shared out, or there are fewer frames than it asks for.
        """
        settings = self.settings
        shares = world * settings.optim.accumulate
        if settings.batch % shares:
            raise TrainingError(
                f"{self.name}: batch {settings.batch} cannot be split over {world} ranks × "
                f"{settings.optim.accumulate} accumulation steps; make it a multiple of {shares}"
            )
        data = self.family.data(self, rank, world, workers)
        if len(data) < settings.batch:
            raise TrainingError(
                f"{self.name}: {len(data)} training frames are fewer than one batch of {settings.batch}; add data to "
                f"{', '.join(settings.sources)} or lower the batch"
            )
        return data

    def validation_data(self, batch: int, rank: int, world: int) -> Frames | None:
        """Fixed batches of held-out frames, without augmentation; ``None`` where there are none."""
        return self.family.validation_data(self, batch, rank, world)

    def task(self) -> Task:
        """The module to train; the same weights at every call."""
        return self.family.task(self)

    def origins(self) -> dict[str, object]:
        """Digests of everything the run learns from, besides its settings."""
        data = {part.shards: manifest_digest(part.shards) for part in (*self.parts, *self.validation)}
        labels = {part.labels: manifest_digest(part.labels) for part in self.parts if part.labels}
        # By the folder's name, not its path: moving a project must not make its models stale.
        return {
            "data": {Path(path).name: digest for path, digest in data.items()},
            "labels": {Path(path).name: digest for path, digest in labels.items()},
            "start": None if self.start is None else self.start.digest,
            "weights": self.family.origins(self),
            **({} if self.refined is None else {"refined": self.refined.digest}),
        }

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the weights: settings, data, parents, seed, precision.

        When checkpoints are written and how many ranks share the batch is not part of it. Nor is the code, whose digest
        stands beside it in the run's record: a finished run is trained again when it changes, one half done is not.
        """
        decisive = {
            "run": self.name,
            "settings": self.settings.model_dump(mode="json", exclude={"checkpoint"}),
            "precision": self.precision,
            "seed": self.seed,
            **self.origins(),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def build_recipe(params: Params, name: str, root: Path, family: Trains, precision: str | None = None) -> Recipe:
    """The recipe of a run.

    Args:
        params: all settings.
        name: ``teacher``, ``student-<key>`` or ``metric-<key>``.
        root: the project's folder, below which data and models lie.
        family: the family that the run names.
        precision: ``fp32`` or ``bf16``; ``None`` is what ``compute.precision`` means on this machine.

    Raises:
        TrainingError: a source or a parent model is not what this kind of run learns from, or is not there.
        ParamsError: no such run.
        ManifestError: a data set has not been ingested.
    """
    run = get_run(params, name)
    if run.student is not None:
        _same_space(params, run, root)
        parts = [_part(params, source, root, run.student.labels) for source in run.settings.sources]
        parts += [_part(params, source, root) for source in run.student.synthetic]
        held_out = params.held_out
    else:
        _refuse_labels(params, run)
        parts = [_part(params, source, root) for source in run.settings.sources]
        held_out = run.settings.sources
    return Recipe(
        run=run,
        family=family,
        parts=parts,
        validation=_held_out(params, held_out, root),
        precision=precision or machine.precision(params.compute.precision).name,
        seed=params.seed,
        root=root,
        start=_model_of(run, INITIAL, "starts from", root),
        refined=_model_of(run, REFINED, "refines", root),
    )


def _model_of(run: Run, role: str, why: str, root: Path) -> Start | None:
    """The model that a run begins from, or whose map it corrects.

    Raises:
        TrainingError: it is not there.
    """
    if (name := run.parents.get(role)) is not None:
        weights = layout.weights(root, name)
        if not weights.exists():
            raise TrainingError(f"{run.name} {why} {name}, which is not trained; train it first")
        return Start(weights.parent, sha256_file(weights))
    if (name := run.outside.get(role)) is not None:
        origin = _origin(root, name, f"{run.name} {why} it")
        return Start(layout.outside(root, name), origin.weights_sha256, origin.kind == "encoder")
    return None


def _origin(root: Path, name: str, why: str) -> Origin:
    """What is known of a model made elsewhere."""
    try:
        return Origin.read(layout.outside(root, name) / layout.ORIGIN)
    except FileNotFoundError:
        raise TrainingError(f"outside.{name} is not taken in, and {why}; 'dvc repro outside@{name}' does it") from None
    except DocumentError as error:
        raise TrainingError(str(error)) from None


def _label_quantity(params: Params, root: Path) -> Quantity:
    """What labels hold: what the teacher learnt, or what was taken in predicts; metres are made disparity."""
    if not isinstance(params.teacher, NamedTeacherParams):
        return Quantity(params.teacher.loss.target)
    quantity = Quantity(_origin(root, params.teacher.name, "labels come from it").quantity)
    return Quantity.DISPARITY if quantity is Quantity.METRES else quantity


def _same_space(params: Params, run: Run, root: Path) -> None:
    """Refuse a student whose labels live in another space than its loss."""
    labels = _label_quantity(params, root)
    if run.settings.loss.target != labels:
        raise TrainingError(
            f"{run.name}: loss.target is {run.settings.loss.target}, but its teacher gives labels of {labels}; set "
            "both alike"
        )


def _refuse_labels(params: Params, run: Run) -> None:
    """Refuse labels that a run must not learn from: whose depth is no depth in metres, or real ones for a teacher."""
    allowed = ("synthetic", "real") if run.metric is not None else ("synthetic",)
    why = (
        "metric models need depth in metres" if run.metric is not None else "labels of real images are coarse and noisy"
    )
    for name in run.settings.sources:
        group = params.data_sets[name].group
        if group not in allowed:
            known = ", ".join(source for each in allowed for source in params.group(each))  # type: ignore[arg-type]
            raise TrainingError(f"{run.name}: source '{name}' is {group}; {why}, so this recipe takes: {known}")


def _part(params: Params, name: str, root: Path, labels: str | None = None) -> Part:
    folder = None if labels is None else str(root / params.labels(name, labels))
    return Part(str(root / params.shards(name)), folder, "train")


def _held_out(params: Params, names: Sequence[str], root: Path) -> list[Part]:
    """Validation parts of the sources that have any."""
    folders = [root / params.shards(name) for name in names]
    ready = [folder for folder in folders if (folder / MANIFEST).exists()]
    return [Part(str(folder), None, "val") for folder in ready if "val" in _splits(folder)]


def _splits(folder: Path) -> list[str]:
    splits: list[str] = read_table(folder, ["split"])["split"].unique().to_pylist()
    return splits
