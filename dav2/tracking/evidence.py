"""The evidence that is kept beside a version's weights: scores, baselines, data gates, size, licences."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from dav2 import layout
from dav2.documents import (
    BenchmarkScores,
    Document,
    DocumentError,
    Evidence,
    Judgement,
    LicenceLine,
    ScoreFile,
    Verdict,
)
from dav2.licences import lines
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import lineage as lineages
from dav2.tracking.layer_gates import judged_metrics
from dav2.tracking.store import TrackingError

Kind = TypeVar("Kind", bound=Document)
EVIDENCE, SCORES, LICENCES = "evidence.json", "scores.json", "licences.md"
BASELINES = ("baseline-constant", "baseline-row", "baseline-brightness")
LAYER_BASELINES = ("baseline-facing", "baseline-picture", "baseline-grey")


def collect_evidence(root: Path, params: Params, scores: ScoreFile, name: str, licences: list[LicenceLine]) -> Evidence:
    """What gates look at, as it is on disk now.

    Args:
        scores: of the run ``name``.
        licences: of everything that its model was made from.

    Raises:
        TrackingError: a score file or verdict is damaged.
    """
    quality = {path.parent.name: _verdict(path) for path in sorted((root / layout.QUALITY).glob("*/result.json"))}
    baselines: dict[str, float | None] = {}
    for baseline in BASELINES:
        path = layout.scores(root, baseline)
        if path.is_file():
            da2k = _document(ScoreFile, path).da2k
            baselines[baseline] = da2k.accuracy if da2k is not None else None
    weights = lineages.model_file(root, name)
    run = get_run(params, name)
    judged = [each for each, entry in scores.benchmarks.items() if judged_metrics(entry)]
    return Evidence(
        kind=run.kind,
        quantity=run.quantity.value,
        validated=list(run.validated),
        scores=scores.summary(),
        baselines=baselines,
        layer_baselines=_of_layers(root, judged) if judged else {},
        quality=quality,
        megabytes=weights.stat().st_size / 1e6,
        licences=licences,
    )


def _of_layers(root: Path, judged: list[str]) -> dict[str, dict[str, BenchmarkScores]]:
    """What trivial baselines reached on the benchmarks that judge a model's layers."""
    found = {}
    for baseline in LAYER_BASELINES:
        path = layout.scores(root, baseline)
        scored = _document(ScoreFile, path).summary().benchmarks if path.is_file() else {}
        found[baseline] = {each: scored[each] for each in judged if each in scored}
    return {baseline: scored for baseline, scored in found.items() if scored}


def _verdict(path: Path) -> Judgement:
    found = _document(Verdict, path)
    return Judgement(**found.model_dump(include=set(Judgement.model_fields)))


def _document(kind: type[Kind], path: Path) -> Kind:
    try:
        return kind.read(path)
    except DocumentError as error:
        raise TrackingError(str(error)) from None


def documents_of(evidence: Evidence, scores: ScoreFile) -> dict[str, str]:
    """What lies beside the weights of a version: what gates compare, every outcome for paired comparisons, licences."""
    return {
        EVIDENCE: evidence.model_dump_json(indent=1, exclude_none=True),
        SCORES: scores.model_dump_json(exclude_none=True),
        LICENCES: lines.as_markdown(evidence.licences or []),
    }


def score_tags(scores: ScoreFile) -> dict[str, str]:
    """Tags of a version: ``da2k.accuracy``, or ``<benchmark>.<metric>`` of layers, in degrees and dB."""
    da2k = scores.known_da2k
    tags = {} if da2k is None else {"da2k.accuracy": f"{da2k.accuracy:.4f}"}
    for name, entry in scores.benchmarks.items():
        found = judged_metrics(entry)
        tags |= {f"{name}.{metric}": f"{value:.4f}" for metric, value in found.items() if value is not None}
    return tags
