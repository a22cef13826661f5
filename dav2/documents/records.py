"""What runs, data gates and labelling leave: records, journal lines, verdicts, receipts."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dav2.documents.base import Document, Part


class DataSet(Part):
    """A data set that something was measured on: its name and the digest of its manifest."""

    name: str
    digest: str


class StepLine(BaseModel):
    """One update, in ``metrics.jsonl``; the loss's terms and the learning rates stand beside the named values.

    Attributes:
        loss: ``None`` where it was not finite and the update was skipped.
        grad_norm: over all parameters before clipping; likewise.
        data_wait: share of the step that was spent waiting for data.
        time: seconds since 1970.
        tflops: 10¹² useful operations a second of each GPU; ``peak_share`` of its data sheet's peak.
        suspects: frames of a skipped update.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    step: int
    steps: int
    loss: float | None
    grad_norm: float | None
    images_per_second: float
    data_wait: float
    memory_mb: float
    time: float
    tflops: float | None = None
    peak_share: float | None = None
    skipped_update: bool = False
    suspects: list[str] = []


class EvaluationLine(Part):
    """One evaluation while a run trains, in ``evaluations.jsonl``.

    Attributes:
        da2k: accuracy in [0, 1]; ``da2k_kinds`` by kind of scene.
        measured_on: score → the data behind it.
        seconds: that it took.
        time: seconds since 1970.
    """

    step: int
    val_loss: float | None = None
    da2k: float | None = None
    da2k_pairs: int | None = None
    da2k_kinds: dict[str, float] = {}
    measured_on: dict[str, DataSet] = {}
    seconds: float
    time: float


class Code(Part):
    """The code that ran.

    Attributes:
        commit, dirty, changed: as git tells; ``unknown`` says why where it cannot.
        digest: of the code that decides the result (:func:`dav2.imports.code_digest`).
    """

    commit: str | None = None
    dirty: bool | None = None
    changed: list[str] | None = None
    unknown: str | None = None
    digest: str | None = None


class Resumed(Part):
    """A run that was taken up again: at which step, by which code, on which machine."""

    step: int
    code: Code
    machine: dict[str, object]


class RunRecord(Document):
    """``run.json``: what decides a run's weights and with what it computes, written before its first step.

    Attributes:
        fingerprint: of settings, data, parents, seed and precision.
        settings: its section of ``params.yaml``.
        origins: digests of data, labels, parents and weights that it learns from.
        machine: :meth:`dav2.machine.Machine.record` where it began.
        compiled: what of the network runs compiled while it trains.
        status: ``finished`` once the model directory is written; what follows is known then.
    """

    run: str
    status: Literal["running", "finished"]
    fingerprint: str
    steps: int
    settings: dict[str, object]
    precision: Literal["fp32", "bf16"]
    precision_why: str
    seed: int
    compute: dict[str, object]
    world: int
    zero_stage: int
    device: str
    threads: int
    compiled: Literal["none", "blocks", "whole"] = "none"
    parameters: int
    training_frames: int
    origins: dict[str, object]
    code: Code
    machine: dict[str, object]
    resumed: list[Resumed] = []
    skipped: int | None = None
    failed_checkpoints: int | None = None
    best_step: int | None = None
    best_value: float | None = None


class Origin(Document):
    """``origin.json``: a model made elsewhere, as it was taken in.

    Attributes:
        name: in section ``outside`` of ``params.yaml``.
        kind: ``model``, ``encoder`` (nothing but its encoder means anything), ``onnx`` or ``maps``.
        source: as it was named there; ``registered`` is the very version where that was an alias of the registry.
        source_sha256: of the file that was read; of a folder, over the digests of its files.
        weights_sha256: of what the model directory holds.
        family, quantity: of the model; for ``maps`` the family is empty.
        licence: as it was declared, or stands in the folder's card; ``None`` is unknown.
        licence_sha256: of the licence's text, where one was given.
    """

    name: str
    kind: Literal["model", "encoder", "onnx", "maps"]
    source: str
    registered: str | None = None
    source_sha256: str
    weights_sha256: str
    family: str
    quantity: str
    licence: str | None = None
    licence_sha256: str | None = None


class Verdict(Document):
    """``result.json`` of a data gate.

    Attributes:
        failures, warnings: a sentence for each expectation that does not hold, critical or not.
        failing: keys of frames that fail.
        expectations: how many were evaluated, on how many ``frames``.
        sources: numbers of each source, and its manifest's digest.
        digest: of all that was validated.
    """

    group: str
    passed: bool
    failures: list[str] = []
    warnings: list[str] = []
    failing: list[str] = []
    expectations: int
    frames: int
    sources: dict[str, dict[str, object]] = {}
    digest: str = ""


class LabelReceipt(Document):
    """``<shard>.receipt.json``: proof that a shard of photographs is labelled.

    Two are equal that say the same of the labels, however they came about.

    Attributes:
        shard: file name of the label shard, and of the shard of photographs.
        fingerprint: sha256 over all that the labels are a function of.
        teacher, images: sha256 of the teacher's weights and of the photographs' shard.
        options: what else shapes a label.
        label_sha256, label_bytes: of the label shard; ``rows_sha256`` of its table.
        run: how it came about: seconds, host, device, batch, library versions.
    """

    shard: str
    fingerprint: str
    teacher: str
    images: str
    options: dict[str, object]
    frames: int
    label_sha256: str
    label_bytes: int
    rows_sha256: str
    run: dict[str, Any] = {}

    def decisive(self) -> dict[str, object]:
        """All but ``run``."""
        return self.model_dump(exclude={"run"})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelReceipt) and self.decisive() == other.decisive()

    def __hash__(self) -> int:
        return hash((self.shard, self.fingerprint, self.label_sha256))

    def to_json(self) -> bytes:
        """The receipt as the bytes of its file."""
        return json.dumps(self.model_dump(), indent=1, sort_keys=True).encode()
