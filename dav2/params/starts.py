"""Whether what runs begin from is there, is of the right kind, and comes before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dav2.params.base import MODELS, OUTSIDE
from dav2.params.recipes import NamedTeacherParams, RecipeParams

if TYPE_CHECKING:
    from dav2.params.marigold import MarigoldParams
    from dav2.params.schema import Params


class Trained(NamedTuple):
    """A recipe with the name of its run, the key under which it stands, and its turn: teacher, students, metric,
    marigold."""

    run: str
    key: str
    turn: int
    recipe: RecipeParams


STUDENTS = 1
"""Turn of the students."""


def recipes(params: Params) -> list[Trained]:
    """Everything that is trained here, in the order of the file."""
    found = []
    if not isinstance(params.teacher, NamedTeacherParams):
        found.append(Trained("teacher", "teacher", 0, params.teacher))
    found += [Trained(f"student-{key}", f"students.{key}", 1, each) for key, each in params.students.items()]
    found += [Trained(f"metric-{key}", f"metric.{key}", 2, each) for key, each in params.metric.items()]
    return found + [Trained(f"marigold-{key}", f"marigold.{key}", 3, each) for key, each in params.marigold.items()]


def check_starts(params: Params) -> None:
    """Refuse a start that names nothing, cannot be started from, is of another size, or is trained later.

    Raises:
        ValueError: the message names the key and what there is.
    """
    runs = {each.run: each for each in recipes(params)}
    for run in runs.values():
        where, start = f"{run.key}.start", run.recipe.start
        if start.startswith(OUTSIDE):
            check_outside(params, where, start, ("model", "encoder"), "it has no weights that dav2 can train")
        elif start.startswith(MODELS):
            _earlier(where, run, start.removeprefix(MODELS), runs)


def check_refined(params: Params, where: str, marigold: MarigoldParams) -> None:
    """Refuse to refine what names nothing, is trained later, or predicts another quantity.

    Raises:
        ValueError: the message names the key and what there is.
    """
    named, key = marigold.refines, f"{where}.refines"
    if named.startswith(OUTSIDE):
        check_outside(params, key, named, ("model",), "only a model that dav2 loads whole can be refined")
    elif named.startswith(MODELS):
        run = named.removeprefix(MODELS)
        known = {each.run: each.recipe for each in recipes(params) if each.turn <= STUDENTS}
        if run not in known:
            raise ValueError(
                f"{key}: no teacher or student named '{run}' is trained here; there are: {', '.join(known)}"
            )
        if (theirs := known[run].loss.target) != marigold.target:
            raise ValueError(f"{key}: {run} predicts {theirs}; set {where}.target to that, not to {marigold.target}")


def check_distilled(params: Params, where: str, marigold: MarigoldParams) -> None:
    """Refuse to distil a run that is no diffusion model, or one of another target, codec or process.

    Raises:
        ValueError: the message names the key and what the teacher has there.
    """
    teachers = {f"{MODELS}marigold-{key}": each for key, each in params.marigold.items()}
    teacher = teachers.get(marigold.start)
    if marigold.objective != "lcm" or teacher is None:
        return
    key = f"{where}.start: {marigold.start.removeprefix(MODELS)}"
    if teacher.objective != "diffusion":
        raise ValueError(f"{key} has the objective {teacher.objective}; only a model of 'diffusion' can be distilled")
    pairs: dict[str, tuple[object, object]] = {
        "target": (teacher.target, marigold.target),
        "codec": (teacher.codec, marigold.codec),
        "process.prediction": (teacher.process.prediction, marigold.process.prediction),
        "process.zero_snr": (teacher.process.zero_snr, marigold.process.zero_snr),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ValueError(f"{key} has {name} {theirs}, this run {ours}; a teacher and what it teaches have the same")


def check_outside(params: Params, where: str, value: str, kinds: tuple[str, ...], why: str) -> None:
    """Refuse ``outside/<name>`` that is not in section ``outside``, or not one of ``kinds`` because of ``why``."""
    name = value.removeprefix(OUTSIDE)
    if name not in params.outside:
        known = ", ".join(params.outside) or "none"
        raise ValueError(f"{where}: no model '{name}' in section 'outside'; there are: {known}")
    if (kind := params.outside[name].kind) not in kinds:
        raise ValueError(f"{where}: outside.{name} is given as '{kind}'; {why}")


def _earlier(where: str, run: Trained, parent: str, runs: dict[str, Trained]) -> None:
    if parent not in runs:
        raise ValueError(f"{where}: no run named '{parent}' is trained here; there are: {', '.join(runs)}")
    if runs[parent].turn > run.turn:
        raise ValueError(f"{where}: {parent} is trained after {run.run}; start from an earlier run")
    theirs, ours = runs[parent].recipe, run.recipe
    if (theirs.family, theirs.size) != (ours.family, ours.size):
        raise ValueError(
            f"{where}: {parent} is {theirs.family} {theirs.size}, but this run is {ours.family} {ours.size}; set both "
            "equal"
        )
    seen = [run.run]
    while parent in runs:
        if parent in seen:
            raise ValueError(f"{where}: {' from '.join([*seen, parent])} is a circle; let one of them start elsewhere")
        seen.append(parent)
        parent = runs[parent].recipe.start.removeprefix(MODELS)
