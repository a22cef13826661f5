"""What a person reads of a registered version and of a registered model on MLflow's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dav2.documents import BenchmarkScores, Evidence
from dav2.licences import lines
from dav2.runs import Run
from dav2.tracking.layer_gates import ANGLE, PSNR, judged_metrics, shown
from dav2.tracking.lineage import Lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST = 5000
"""Characters that MLflow's databases take as a description."""
PICTURES = "previews"


def describe_model(name: str) -> str:
    """What stands on top of a registered model: what its aliases mean and who may move them."""
    return (
        f"Versions of **{name}**, trained by dav2. `candidate` is the newest, `champion` the one in use, `previous` "
        "what a rollback goes back to.\n\n"
        "**Buttons on this page go around dav2's gates.** *Promote model* and the aliases ask nobody whether the "
        "scores, data gates and licences allow it; an alias of a decided model that is set here lasts until the next "
        f"dav2 command, which sets it back. Promote with `dav2 promote {name}` in the project folder, or with the "
        f"deployment *promote* on the Prefect page; go back with `dav2 rollback {name}`."
    )


def describe_version(name: str, run: Run, lineage: Lineage, evidence: Evidence, picture: str | None) -> str:
    """The card: what it is, what it scores, what it was made from, how to use and to promote it; Markdown.

    Args:
        picture: address of a photograph beside the model's map.
    """
    parts = [
        f"**{_what(run, evidence)}**",
        f"![photograph, prediction, target]({picture})" if picture else "",
        _scores(evidence),
        f"**Made from** {_made_from(run, lineage)}",
        "**Licences.** " + " ".join(lines.verdict(evidence.licences or [])[:2]),
        f"**Use it**\n```\ndav2 predict photo.jpg --model models:/{name}@candidate\n"
        f"python -c \"import dav2; print(dav2.infer('photo.jpg', 'models:/{name}@candidate').shape)\"\n"
        f"mlflow models serve -m models:/{name}@candidate --env-manager local\n```",
        f"**Promote it** with `dav2 promote {name}`: its gates are run and told one by one. Buttons on this page ask "
        "none of them.",
    ]
    text = "\n\n".join(part for part in parts if part)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


def _what(run: Run, evidence: Evidence) -> str:
    size = getattr(run.settings, "size", None)
    kind = {"teacher": "Teacher", "student": "Student", "metric": "Metric model", "marigold": "Diffusion model"}[
        run.kind
    ]
    named = f" {run.key}" if run.key else ""
    of = run.family.replace("_", " ") + (f", size {size}" if size else "")
    weight = f"; {evidence.megabytes:.1f} MB" if evidence.megabytes else ""
    return f"{kind}{named} ({of}): predicts {run.quantity.value.replace('_', ' ')}{weight}"


def _scores(evidence: Evidence) -> str:
    scores, rows = evidence.scores, []
    da2k = scores.known_da2k if scores is not None else None
    if da2k is not None and da2k.accuracy is not None:
        between = (
            f"{100 * da2k.low:.1f} to {100 * da2k.high:.1f} %"
            if da2k.low is not None and da2k.high is not None
            else "–"
        )
        rows.append(f"| DA-2K, {da2k.pairs} pairs | {100 * da2k.accuracy:.1f} % right | {between} |")
    for name, entry in scores.benchmarks.items() if scores is not None else ():
        rows += [_error(name, entry)] if entry.metrics.get("abs_rel") is not None else []
        rows += _layers(name, entry, evidence.layer_baselines)
    if not rows:
        return "Not scored."
    return "\n".join(["| benchmark | score | 95 % interval |", "|---|---|---|", *rows])


def _error(name: str, entry: BenchmarkScores) -> str:
    low, high = entry.intervals.get("abs_rel", (None, None))
    between = f"{low:.3f} to {high:.3f}" if low is not None and high is not None else "–"
    return f"| {name}, {entry.scored} images, {entry.protocol} | AbsRel {entry.metrics['abs_rel']:.3f} | {between} |"


def _layers(name: str, entry: BenchmarkScores, baselines: dict[str, dict[str, BenchmarkScores]]) -> list[str]:
    """A row for every layer that was judged, beside the trivial baselines."""
    rows = []
    for metric, value in judged_metrics(entry).items():
        if value is None:
            continue
        low, high = entry.intervals.get(metric, (None, None))
        between = f"{low:.2f} to {high:.2f}" if low is not None and high is not None else "–"
        beside = {each: judged[name].metrics.get(metric) for each, judged in baselines.items() if name in judged}
        told = ", ".join(f"{each} {shown(metric, other)}" for each, other in beside.items() if other is not None)
        what = "mean angle" if metric == ANGLE else f"PSNR of {metric.removesuffix(PSNR)}"
        score = f"{what} {shown(metric, value)}" + (f" ({told})" if told else "")
        rows.append(f"| {name}, {entry.scored} images, {entry.protocol} | {score} | {between} |")
    return rows


def _made_from(run: Run, lineage: Lineage) -> str:
    commit = str(lineage.code.get("commit", "unknown"))[:10]
    state = " with changes that were not committed" if lineage.code.get("dirty") else ""
    told = [f"{', '.join(lineage.data) or 'no data'}, in {run.settings.steps} steps, by code {commit}{state}"]
    for parent in lineage.parents:
        version = f" ({parent['name']} version {parent['version']})" if "version" in parent else ""
        told.append(f"{parent['role']}: {parent['run']}{version}")
    told += [f"{origin['role']}: {origin['name']}, made elsewhere" for origin in lineage.outside]
    return "; ".join(told) + f". All of it: `dav2 lineage {run.registered}`."


def picture_of(api: MlflowClient, run_id: str | None) -> str | None:
    """Address, below MLflow's own page, of the last picture that a training drew."""
    if run_id is None:
        return None
    found = sorted(file.path for file in api.list_artifacts(run_id, PICTURES))
    return f"get-artifact?path={found[-1]}&run_uuid={run_id}" if found else None
