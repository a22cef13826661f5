"""What one room leaves on disk for another to read: one model for the writer, the reader and the tests.

A file says which ``format`` it has. Lines of a journal have none: the run's record beside them does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dav2.files import write_whole

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Model = TypeVar("Model", bound="Document")


class DocumentError(ValueError):
    """A file that is not the document it should be; the message names it, the first wrong key and what to do."""


class Part(BaseModel):
    """Base of everything in a document: unknown keys are refused, so that no reader can ask for what nobody writes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Document(Part):
    """Base of whole files."""

    format: Literal[1] = 1

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_whole(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file.

        Raises:
            FileNotFoundError: it is not there.
            DocumentError: it is damaged, of another kind, or of another format.
        """
        return read_as(cls, path)


def read_as(kind: type[Model], path: Path) -> Model:
    """The document of ``kind`` in ``path``; see :meth:`Document.read`."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(each) for each in first["loc"])
        named = f"{where}: " if where else ""
        raise DocumentError(f"{path} cannot be used ({named}{first['msg']}); delete it and make it again") from None


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
    machine: dict[str, Any]


class RunRecord(Document):
    """``run.json``: what decides a run's weights and with what it computes, written before its first step.

    Attributes:
        fingerprint: of settings, data, parents, seed and precision.
        settings: its section of ``params.yaml``.
        origins: digests of data, labels, parents and weights that it learns from.
        machine: :meth:`dav2.machine.Machine.record` where it began.
        status: ``finished`` once the model directory is written; what follows is known then.
    """

    run: str
    status: Literal["running", "finished"]
    fingerprint: str
    steps: int
    settings: dict[str, Any]
    precision: Literal["fp32", "bf16"]
    precision_why: str
    seed: int
    compute: dict[str, Any]
    world: int
    zero_stage: int
    device: str
    threads: int
    parameters: int
    training_frames: int
    origins: dict[str, Any]
    code: Code
    machine: dict[str, Any]
    resumed: list[Resumed] = []
    skipped: int | None = None
    failed_checkpoints: int | None = None
    best_step: int | None = None
    best_value: float | None = None


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
    sources: dict[str, dict[str, Any]] = {}
    digest: str = ""


class Judgement(Part):
    """What gates compare of a data gate's verdict."""

    passed: bool
    digest: str = ""
    failures: list[str] = []
    expectations: int = 0
    frames: int = 0


class Evidence(Document):
    """``evidence.json`` of a registered version: what its gates look at, wherever they run.

    Attributes:
        kind: of the run: ``teacher``, ``student`` or ``metric``; empty in versions older than this key.
        validated: groups of data whose gates must have passed.
        scores: the score file without the outcomes of single images.
        baselines: DA-2K accuracy of each trivial baseline.
        quality: verdicts by group.
        megabytes: of the weights file.
    """

    kind: Literal["teacher", "student", "metric", ""] = ""
    validated: list[str] = []
    scores: dict[str, Any] = {}
    baselines: dict[str, float | None] = {}
    quality: dict[str, Judgement] = {}
    megabytes: float | None = None

    @property
    def da2k(self) -> dict[str, Any] | None:
        """Score on DA-2K, where there is one."""
        found: dict[str, Any] = self.scores.get("da2k") or {}
        return found if found.get("accuracy") is not None else None


class RegisteredModel(Part):
    """A version in the registry, as the stage ``register`` leaves it for people."""

    name: str
    version: str
    run: str
    model_id: str
    weights_sha256: str
