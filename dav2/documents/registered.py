"""What the registry keeps of a version: its record, and the evidence that its gates look at."""

from __future__ import annotations

from typing import Literal

from dav2.documents.base import Document, Part
from dav2.documents.scores import BenchmarkScores, Da2kScores, ScoreFile


class RegisteredModel(Part):
    """A version in the registry, as the stage ``register`` made or found it.

    Attributes:
        version: counted from 1.
        run: training run that made it.
        model_id: logged model that holds its files.
    """

    name: str
    version: str
    run: str
    model_id: str
    weights_sha256: str


class RegisteredRecord(Document):
    """``registered.json``: every registered model of the pipeline, parents first."""

    models: list[RegisteredModel]


class Judgement(Part):
    """What gates compare of a data gate's verdict."""

    passed: bool
    digest: str = ""
    failures: list[str] = []
    expectations: int = 0
    frames: int = 0


class LicenceLine(Part):
    """One thing that a model was made from, and what its licence allows.

    Attributes:
        kind: ``data``, or ``model`` for a teacher, an encoder or initial weights made elsewhere.
        name: of the data set, or of the model in section ``outside``.
        through: runs by which it reached the model, nearest first; empty for what the model itself learned from.
        licence: as it is declared; ``unknown`` where it is not.
        declared: who says so: ``data set``, ``params.yaml`` or ``model``.
        commercial, share_alike, attribution: ``yes``, ``no`` or ``unknown`` (:mod:`dav2.licences`).
        says: the judgement in a sentence; ``source`` is where that stands.
    """

    kind: Literal["data", "model"]
    name: str
    through: list[str] = []
    licence: str
    declared: str
    commercial: Literal["yes", "no", "unknown"]
    share_alike: Literal["yes", "no", "unknown"]
    attribution: Literal["yes", "no", "unknown"]
    says: str
    source: str


class Evidence(Document):
    """``evidence.json`` of a registered version: what its gates look at, wherever they run.

    Attributes:
        kind: of the run: ``teacher``, ``student``, ``metric`` or ``marigold``; empty in versions older than this key.
        quantity: what the model predicts, or the first of it; empty in versions older than this key.
        validated: groups of data whose gates must have passed.
        scores: the score file without what it says of single images.
        baselines: DA-2K accuracy of each trivial baseline.
        layer_baselines: scores of each trivial baseline of layers on the benchmarks that judge the model's layers.
        quality: verdicts by group.
        megabytes: of the weights file.
        licences: of everything that the model was made from; ``None`` in versions older than this key.
    """

    kind: Literal["teacher", "student", "metric", "marigold", ""] = ""
    quantity: str = ""
    validated: list[str] = []
    scores: ScoreFile | None = None
    baselines: dict[str, float | None] = {}
    layer_baselines: dict[str, dict[str, BenchmarkScores]] = {}
    quality: dict[str, Judgement] = {}
    megabytes: float | None = None
    licences: list[LicenceLine] | None = None

    @property
    def da2k(self) -> Da2kScores | None:
        """Score on DA-2K, where there is one."""
        return self.scores.known_da2k if self.scores is not None else None

    @property
    def predicts(self) -> str:
        """What the model predicts, or the first of it; from its scores where the version is older than the key."""
        return self.quantity or (self.scores.quantity if self.scores is not None else "")
