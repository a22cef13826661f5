"""Training runs: everything that follows from a run's place in ``params.yaml``, worked out once.

Nothing else takes a run's name apart: who needs its kind, stage, parents or registered name asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dav2.maps import Quantity
from dav2.params import MetricParams, Params, ParamsError, RecipeParams, StudentParams

Kind = Literal["teacher", "student", "metric"]
VALIDATED: dict[Kind, tuple[str, ...]] = {
    "teacher": ("synthetic", "benchmark"),
    "student": ("unlabelled", "pseudo", "benchmark"),
    "metric": ("synthetic", "benchmark"),
}
"""Groups of data whose gates must have passed before a model of the kind is promoted."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: ``teacher``, ``student-<key>`` or ``metric-<key>``.
        kind: which part of the recipe it is.
        key: its key in ``students`` or ``metric``; empty for the teacher.
        family: name of the model family that trains it.
        quantity: what its model predicts.
        settings: its section of ``params.yaml``.
        parents: role → name of a run it learns from: ``teacher`` (labels), ``initial weights``.
        start: what its weights begin as: ``random``, or where its encoder's come from.
        stage: its stage in ``dvc.yaml``.
        registered: name of its model in the registry.
    """

    name: str
    kind: Kind
    key: str
    family: str
    quantity: Quantity
    settings: RecipeParams
    stage: str
    registered: str
    start: str = "random"
    parents: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> MetricParams | None:
        """Its settings where it learns metres."""
        return self.settings if isinstance(self.settings, MetricParams) else None

    @property
    def student(self) -> StudentParams | None:
        """Its settings where it learns from pseudo-labels."""
        return self.settings if isinstance(self.settings, StudentParams) else None

    @property
    def validated(self) -> tuple[str, ...]:
        """Groups of data whose gates must have passed before its model is promoted."""
        return VALIDATED[self.kind]

    @property
    def sources(self) -> list[str]:
        """Data sets it learns from, labelled synthetic ones of a student included."""
        more = self.student.synthetic if self.student is not None else []
        return list(dict.fromkeys([*self.settings.sources, *more]))


def all_runs(params: Params) -> dict[str, Run]:
    """Every training run by name, in the order in which they can be trained."""
    runs = [_teacher(params), *(_student(params, key) for key in params.students)]
    runs += [_metric(params, key) for key in params.metric]
    return {run.name: run for run in runs}


def get_run(params: Params, name: str) -> Run:
    """The run called ``name``.

    Raises:
        ParamsError: there is none; the message lists those there are.
    """
    runs = all_runs(params)
    if name not in runs:
        raise ParamsError(f"no training run named '{name}'; there are: {', '.join(runs)}")
    return runs[name]


def _teacher(params: Params) -> Run:
    settings = params.teacher
    return Run(
        name="teacher",
        kind="teacher",
        key="",
        family=settings.family,
        quantity=Quantity(settings.loss.target),
        settings=settings,
        stage="teacher",
        registered="dav2-teacher",
        start=_start(settings),
    )


def _student(params: Params, key: str) -> Run:
    settings = params.students[key]
    # Of two students of one size, each is named by its key.
    alone = [student.size for student in params.students.values()].count(settings.size) == 1
    return Run(
        name=f"student-{key}",
        kind="student",
        key=key,
        family=settings.family,
        quantity=Quantity(settings.loss.target),
        settings=settings,
        stage=f"student@{key}",
        registered=f"dav2-student-{settings.size if alone else key}",
        start=_start(settings),
        parents={"teacher": "teacher"},
    )


def _metric(params: Params, key: str) -> Run:
    settings = params.metric[key]
    student = f"student-{settings.student}"
    return Run(
        name=f"metric-{key}",
        kind="metric",
        key=key,
        family=settings.family,
        quantity=Quantity.METRES,
        settings=settings,
        stage=f"metric@{key}",
        registered=f"dav2-metric-{key}-{settings.size}",
        start=f"run {student}",
        parents={"initial weights": student},
    )


def _start(settings: RecipeParams) -> str:
    return "random" if settings.encoder_weights is None else f"encoder {settings.encoder_weights}"
