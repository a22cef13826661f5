"""Whether the names in ``params.yaml`` name something, and something of the right kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dav2.params.base import ALL_LABELS, SELECTIONS, Group
from dav2.params.recipes import RecipeParams, StudentParams

if TYPE_CHECKING:
    from dav2.params.schema import Params


def check_references(params: Params) -> None:
    """Refuse a name that names nothing, or a data set of another group than a recipe may learn from.

    Raises:
        ValueError: the message names the key and lists what there is.
    """
    _data_sets(params)
    _teacher_and_labels(params)
    for key, student in params.students.items():
        _student(params, key, student)
    _selections(params)
    _metric(params)
    _evaluation(params)


def _need(params: Params, where: str, names: list[str], groups: tuple[Group, ...], why: str) -> None:
    known = params.data_sets
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no data set named '{name}'; there are: {', '.join(known)}")
        if known[name].group not in groups:
            raise ValueError(f"{where}: '{name}' is {known[name].group}; {why}")


def _data_sets(params: Params) -> None:
    twice = set(params.sources) & set(params.benchmarks)
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} stands under both sources and benchmarks; rename one")
    for names in (params.data_sets, params.students, params.metric, params.selections, params.evaluate.benchmarks):
        _once_on_every_system(names)
    for name in params.sources:
        _need(params, f"sources.{name}", [name], ("synthetic", "unlabelled"), "benchmarks go under 'benchmarks'")
    for name in params.benchmarks:
        _need(params, f"benchmarks.{name}", [name], ("benchmark",), "data to learn from goes under 'sources'")


def _once_on_every_system(names: Iterable[str]) -> None:
    once: dict[str, str] = {}
    for name in names:
        if (other := once.setdefault(name.lower(), name)) != name:
            raise ValueError(f"'{other}' and '{name}' are one folder on many systems; rename one")


def _teacher_and_labels(params: Params) -> None:
    _loss("teacher", params.teacher, "relative", "a teacher labels without a scale")
    why = "the teacher learns from synthetic images only, because real labels are coarse and noisy"
    _need(params, "teacher.sources", params.teacher.sources, ("synthetic",), why)
    why = "pseudo-labels are made for unlabelled photographs"
    _need(params, "pseudo_label.sources", params.pseudo_label.sources, ("unlabelled",), why)


def _loss(where: str, recipe: RecipeParams, kind: str, why: str) -> None:
    if recipe.loss.kind not in (None, kind):
        raise ValueError(f"{where}.loss.kind is {recipe.loss.kind}, but {why}; leave it out, or say {kind}")


def _student(params: Params, key: str, student: StudentParams) -> None:
    where = f"students.{key}"
    _loss(where, student, "relative", "students learn from labels without a scale")
    why = "students see pseudo-labelled photographs; labelled sources go under 'synthetic'"
    _need(params, f"{where}.sources", student.sources, ("unlabelled",), why)
    _need(params, f"{where}.synthetic", student.synthetic, ("synthetic",), "it must be synthetic")
    _labelled(params, where, student.sources)
    if student.labels == ALL_LABELS:
        return
    name = student.labels.removeprefix(SELECTIONS)
    if name == student.labels or name not in params.selections:
        known = [ALL_LABELS, *(SELECTIONS + each for each in params.selections)]
        raise ValueError(f"{where}.labels: no labels '{student.labels}'; there are: {', '.join(known)}")
    missing = [source for source in student.sources if source not in params.selections[name].sources]
    if missing:
        raise ValueError(f"{where}.sources: {', '.join(missing)} not in selections.{name}.sources")


def _labelled(params: Params, where: str, sources: list[str]) -> None:
    missing = [name for name in sources if name not in params.pseudo_label.sources]
    if missing:
        raise ValueError(f"{where}.sources: {', '.join(missing)} not in pseudo_label.sources")


def _selections(params: Params) -> None:
    settings = params.pseudo_label
    for key, selection in params.selections.items():
        _labelled(params, f"selections.{key}", selection.sources)
        if not settings.embedding or not (settings.flip_agreement or settings.scale_agreement):
            raise ValueError(
                f"selections.{key} needs pseudo_label.embedding, and flip_agreement or scale_agreement, switched on"
            )


def _metric(params: Params) -> None:
    for key, metric in params.metric.items():
        where = f"metric.{key}"
        _loss(where, metric, "silog", "metric models learn metres")
        _need(params, f"{where}.sources", metric.sources, ("synthetic",), "metric models need depth in metres")
        if metric.student not in params.students:
            known = ", ".join(params.students)
            raise ValueError(f"{where}.student: no student '{metric.student}'; there are: {known}")
        size = params.students[metric.student].size
        if metric.size != size:
            raise ValueError(f"{where}.size is {metric.size}, but student '{metric.student}' is {size}; set them equal")


def _evaluation(params: Params) -> None:
    runs = ["teacher", *(f"student-{key}" for key in params.students), *(f"metric-{key}" for key in params.metric)]
    unknown = [name for name in params.evaluate.models if name not in runs]
    if unknown:
        raise ValueError(f"evaluate.models: no run named {', '.join(unknown)}; there are: {', '.join(runs)}")
    _need(params, "evaluate.da2k", [params.evaluate.da2k], ("benchmark",), "it must be a benchmark")
    judged = [benchmark.source for benchmark in params.evaluate.benchmarks.values()]
    _need(params, "evaluate.benchmarks", judged, ("benchmark",), "it must be a benchmark")
