"""Training runs: everything that follows from a run's place in ``params.yaml``, worked out once.

Nothing else takes a run's name apart: who needs its kind, stage, parents or registered name asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from dav2.maps import Quantity
from dav2.names import known
from dav2.params import (
    MarigoldParams,
    MetricParams,
    NamedTeacherParams,
    Params,
    ParamsError,
    RecipeParams,
    StudentParams,
    TeacherParams,
)
from dav2.params.base import MODELS, OUTSIDE

Kind = Literal["teacher", "student", "metric", "marigold"]
TEACHER, INITIAL, REFINED = "teacher", "initial weights", "refined"
"""Roles of a model that another one learns from."""
VALIDATED: dict[Kind, tuple[str, ...]] = {
    "teacher": ("synthetic", "benchmark"),
    "student": ("unlabelled", "pseudo", "benchmark"),
    "metric": ("synthetic", "real", "benchmark"),
    "marigold": ("synthetic", "benchmark"),
}
"""Groups of data whose gates must have passed before a model of the kind is promoted."""

FIRST = {"appearance": Quantity.ALBEDO, "lighting": Quantity.ALBEDO}
"""The quantity that a model of several is known by."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: ``teacher``, ``student-<key>``, ``metric-<key>`` or ``marigold-<key>``.
        kind: which part of the recipe it is.
        key: its key in ``students``, ``metric`` or ``marigold``; empty for the teacher.
        family: name of the model family that trains it.
        quantity: what its model predicts, or the first of it.
        settings: its section of ``params.yaml``.
        parents: role → name of a run it learns from: ``teacher`` (labels), ``initial weights``, ``refined``
            (whose map it corrects).
        outside: role → name of a model made elsewhere that it learns from, likewise.
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
    parents: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)

    @property
    def metric(self) -> MetricParams | None:
        """Its settings where it learns metres."""
        return self.settings if isinstance(self.settings, MetricParams) else None

    @property
    def student(self) -> StudentParams | None:
        """Its settings where it learns from pseudo-labels."""
        return self.settings if isinstance(self.settings, StudentParams) else None

    @property
    def marigold(self) -> MarigoldParams | None:
        """Its settings where it is a diffusion model."""
        return self.settings if isinstance(self.settings, MarigoldParams) else None

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
    """Every training run by name, in the order in which they can be trained. A teacher only named is none."""
    waiting = [] if isinstance(params.teacher, NamedTeacherParams) else [_teacher(params.teacher)]
    waiting += [_student(params, key) for key in params.students]
    waiting += [_metric(params, key) for key in params.metric]
    waiting += [_marigold(params, key) for key in params.marigold]
    runs: dict[str, Run] = {}
    while waiting:
        # Settings with a circle are refused when they are read, so one of them can always be trained next.
        ready = next(run for run in waiting if all(parent in runs for parent in run.parents.values()))
        runs[ready.name] = ready
        waiting.remove(ready)
    return runs


def get_run(params: Params, name: str) -> Run:
    """The run called ``name``.

    Raises:
        ParamsError: there is none; the message lists those there are.
    """
    runs = all_runs(params)
    if name not in runs:
        raise ParamsError(f"no training run named '{name}'; {known(name, runs)}")
    return runs[name]


def _teacher(settings: TeacherParams) -> Run:
    return _run("teacher", "", settings, settings.loss.target, "dav2-teacher")


def _student(params: Params, key: str) -> Run:
    settings = params.students[key]
    # Of two students of one size, each is named by its key.
    alone = [student.size for student in params.students.values()].count(settings.size) == 1
    run = _run("student", key, settings, settings.loss.target, f"dav2-student-{settings.size if alone else key}")
    if isinstance(params.teacher, NamedTeacherParams):
        return replace(run, outside={**run.outside, TEACHER: params.teacher.name})
    return replace(run, parents={**run.parents, TEACHER: "teacher"})


def _metric(params: Params, key: str) -> Run:
    settings = params.metric[key]
    return _run("metric", key, settings, Quantity.METRES, f"dav2-metric-{key}-{settings.size}")


def _marigold(params: Params, key: str) -> Run:
    settings = params.marigold[key]
    quantity = FIRST.get(settings.target, settings.target)
    run = _run("marigold", key, settings, quantity, f"dav2-marigold-{key}-{settings.size}")
    if settings.refines.startswith(MODELS):
        return replace(run, parents={**run.parents, REFINED: settings.refines.removeprefix(MODELS)})
    if settings.refines.startswith(OUTSIDE):
        return replace(run, outside={**run.outside, REFINED: settings.refines.removeprefix(OUTSIDE)})
    return run


def _run(kind: Kind, key: str, settings: RecipeParams, quantity: str, registered: str) -> Run:
    """A run by its place: ``<kind>-<key>`` in the section, ``<kind>@<key>`` in ``dvc.yaml``; the teacher has no key."""
    starts = {}
    for folder, part in ((MODELS, "parents"), (OUTSIDE, "outside")):
        if settings.start.startswith(folder):
            starts[part] = {INITIAL: settings.start.removeprefix(folder)}
    return Run(
        name=f"{kind}-{key}" if key else kind,
        kind=kind,
        key=key,
        family=settings.family,
        quantity=Quantity(quantity),
        settings=settings,
        stage=f"{kind}@{key}" if key else kind,
        registered=registered,
        **starts,
    )
