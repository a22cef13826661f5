"""Whether the names in ``params.yaml`` name something, and something of the right kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dav2.params.base import ALL_LABELS, LATENTS, NOTHING, SELECTIONS, Group, check_multiple
from dav2.params.marigold import MarigoldParams
from dav2.params.recipes import NamedTeacherParams, RecipeParams, StudentParams
from dav2.params.starts import check_distilled, check_outside, check_refined, check_starts, recipes

if TYPE_CHECKING:
    from dav2.params.schema import Params

NORMALS = "normals"
"""What a recipe of Depth Anything learns where that is not depth."""


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
    _marigold(params)
    check_starts(params)
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
    for names in (
        params.data_sets,
        params.students,
        params.metric,
        params.selections,
        params.evaluate.benchmarks,
        params.codecs,
        params.latents,
        params.marigold,
    ):
        _once_on_every_system(names)
    for name in params.licences:
        if name not in params.data_sets:
            raise ValueError(f"licences.{name}: no data set of that name; there are: {', '.join(params.data_sets)}")
    for name in params.sources:
        _need(
            params, f"sources.{name}", [name], ("synthetic", "real", "unlabelled"), "benchmarks go under 'benchmarks'"
        )
    for name in params.benchmarks:
        _need(params, f"benchmarks.{name}", [name], ("benchmark",), "data to learn from goes under 'sources'")


def _once_on_every_system(names: Iterable[str]) -> None:
    once: dict[str, str] = {}
    for name in names:
        if (other := once.setdefault(name.lower(), name)) != name:
            raise ValueError(f"'{other}' and '{name}' are one folder on many systems; rename one")


def _teacher_and_labels(params: Params) -> None:
    if isinstance(params.teacher, NamedTeacherParams):
        kinds, why = ("model", "onnx", "maps"), "an encoder alone cannot label"
        check_outside(params, "teacher.use", params.teacher.use, kinds, why)
        if params.outside[params.teacher.name].kind == "maps":
            _without_a_seeing_teacher(params)
    else:
        _loss("teacher", params.teacher, "a teacher labels without a scale")
        if params.pseudo_label.sources and params.teacher.family == "depth_anything":
            check_multiple(params.pseudo_label.input_size, params.teacher.size, "pseudo_label.input_size: ")
        why = "the teacher learns from synthetic images only, because real labels are coarse and noisy"
        _need(params, "teacher.sources", params.teacher.sources, ("synthetic",), why)
    why = "pseudo-labels are made for unlabelled photographs"
    _need(params, "pseudo_label.sources", params.pseudo_label.sources, ("unlabelled",), why)


def _without_a_seeing_teacher(params: Params) -> None:
    """Refuse what finished maps cannot do: be judged on other photographs, or look at changed ones."""
    if "teacher" in params.evaluate.models:
        raise ValueError("evaluate.models: finished maps cannot be judged on other photographs; leave the teacher out")
    if "fog" in params.evaluate.robustness:
        raise ValueError(
            "evaluate.robustness: fog takes distances from the teacher, and finished maps have none; leave it out"
        )
    labels = params.pseudo_label
    for name in ("flip_agreement", "scale_agreement", "embedding"):
        if getattr(labels, name):
            raise ValueError(f"pseudo_label.{name}: finished maps cannot say it; set it false")


def _loss(where: str, recipe: RecipeParams, why: str, kind: str = "relative") -> None:
    # Of normals there is one loss, which the section itself insists on.
    if recipe.loss.kind not in (None, kind) and recipe.loss.target != NORMALS:
        raise ValueError(f"{where}.loss.kind is {recipe.loss.kind}, but {why}; leave it out, or say {kind}")


def _student(params: Params, key: str, student: StudentParams) -> None:
    where = f"students.{key}"
    _loss(where, student, "students learn from labels without a scale")
    why = "students see pseudo-labelled photographs; labelled sources go under 'synthetic'"
    _need(params, f"{where}.sources", student.sources, ("unlabelled",), why)
    _need(params, f"{where}.synthetic", student.synthetic, ("synthetic",), "it must be synthetic")
    _labelled(params, where, student.sources)
    _alike(params, where, student)
    if student.labels == ALL_LABELS:
        return
    name = student.labels.removeprefix(SELECTIONS)
    if name == student.labels or name not in params.selections:
        known = [ALL_LABELS, *(SELECTIONS + each for each in params.selections)]
        raise ValueError(f"{where}.labels: no labels '{student.labels}'; there are: {', '.join(known)}")
    missing = [source for source in student.sources if source not in params.selections[name].sources]
    if missing:
        raise ValueError(f"{where}.sources: {', '.join(missing)} not in selections.{name}.sources")


def _alike(params: Params, where: str, student: StudentParams) -> None:
    """Refuse to learn depth from labels of normals, or the other way round, before the teacher has been trained."""
    if isinstance(params.teacher, NamedTeacherParams):
        return
    ours, theirs = student.loss.target, params.teacher.loss.target
    if (ours == NORMALS) != (theirs == NORMALS):
        raise ValueError(f"{where}.loss.target is {ours}, but its teacher gives labels of {theirs}; set both alike")


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
        if metric.loss.target == NORMALS:
            raise ValueError(f"{where}.loss.target is normals, but metric models learn metres; leave it out")
        _loss(where, metric, "metric models learn metres", "silog")
        _need(params, f"{where}.sources", metric.sources, ("synthetic", "real"), "metric models need depth in metres")


def _marigold(params: Params) -> None:
    for key, codec in params.codecs.items():
        _need(params, f"codecs.{key}.sources", codec.sources, ("synthetic",), "a codec is fitted to exact depth")
    for key, latents in params.latents.items():
        _need(params, f"latents.{key}.sources", latents.sources, ("synthetic",), "this family learns from exact depth")
        if latents.codec not in params.codecs:
            known = ", ".join(params.codecs) or "none"
            raise ValueError(f"latents.{key}.codec: no codec '{latents.codec}'; there are: {known}")
    for key, marigold in params.marigold.items():
        where = f"marigold.{key}"
        if marigold.codec not in params.codecs:
            known = ", ".join(params.codecs) or "none"
            raise ValueError(f"{where}.codec: no codec '{marigold.codec}' in section 'codecs'; there are: {known}")
        _need(params, f"{where}.sources", marigold.sources, ("synthetic",), "this family learns from exact depth")
        check_refined(params, where, marigold)
        check_distilled(params, where, marigold)
        _latents(params, where, marigold)


def _latents(params: Params, where: str, marigold: MarigoldParams) -> None:
    """Refuse latents that are not there, or of other photographs or maps than the run would encode itself."""
    if marigold.latents == NOTHING:
        return
    name = marigold.latents.removeprefix(LATENTS)
    if name not in params.latents:
        known = ", ".join(params.latents) or "none"
        raise ValueError(f"{where}.latents: no latents '{name}' in section 'latents'; there are: {known}")
    kept = params.latents[name]
    different = [each for each in type(kept).model_fields if getattr(kept, each) != getattr(marigold, each)]
    if different:
        raise ValueError(f"{where} and latents.{name} differ in {', '.join(different)}; set these alike")


def _evaluation(params: Params) -> None:
    blind = [f"marigold-{key}" for key, each in params.marigold.items() if each.objective == "photographs"]
    if found := [name for name in params.evaluate.models if name in blind]:
        raise ValueError(
            f"evaluate.models: {', '.join(found)} denoises photographs and predicts no depth; leave it out"
        )
    runs = list(dict.fromkeys(["teacher", *(each.run for each in recipes(params))]))
    unseeing = isinstance(params.teacher, RecipeParams) and params.teacher.loss.target == NORMALS
    if unseeing and "fog" in params.evaluate.robustness:
        raise ValueError(
            "evaluate.robustness: fog takes distances from the teacher, and this one predicts normals; leave it out"
        )
    unknown = [name for name in params.evaluate.models if name not in runs]
    if unknown:
        raise ValueError(f"evaluate.models: no run named {', '.join(unknown)}; there are: {', '.join(runs)}")
    _need(params, "evaluate.da2k", [params.evaluate.da2k], ("benchmark",), "it must be a benchmark")
    for key, benchmark in params.evaluate.benchmarks.items():
        if benchmark.models != "relative" and benchmark.models not in params.metric:
            known = ", ".join(["relative", *params.metric])
            raise ValueError(f"evaluate.benchmarks.{key}.models: no '{benchmark.models}'; there are: {known}")
    judged = [benchmark.source for benchmark in params.evaluate.benchmarks.values()]
    _need(params, "evaluate.benchmarks", judged, ("benchmark",), "it must be a benchmark")
