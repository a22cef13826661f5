"""Score one model on DA-2K and on every benchmark that fits it; write ``artifacts/scores/<model>.json``.

The file holds per-image outcomes beside the summary, so that comparisons are paired and failures can be shown later
without running the model again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.evaluation.baselines import BASELINES
from dav2.evaluation.passes import Passes, Progress
from dav2.evaluation.predictors import Judged, open_predictor, resolve
from dav2.files import write_whole
from dav2.params import BenchmarkParams, Params
from dav2.runs import all_runs
from dav2.scores.protocols import get_protocol


class EvaluationError(ValueError):
    """A model cannot be scored; the message says which file is missing or which name is wrong, and what to do."""


def scored_models(params: Params) -> list[str]:
    """Everything the pipeline scores: the listed runs and the trivial baselines."""
    return [*params.evaluate.models, *BASELINES]


def evaluate_model(
    model: str,
    params: Params,
    root: Path,
    progress: Progress | None = None,
    *,
    benchmarks: Iterable[str] | None = None,
    device: str | None = None,
    batch: int = 8,
) -> dict[str, Any]:
    """Score a model and write its score file.

    Args:
        model: a training run, a model directory or weights file, or ``baseline-constant|row|brightness``.
        params: settings; ``evaluate`` says what is scored.
        root: project folder.
        progress: called with (frames done, frames in all).
        benchmarks: names from ``evaluate.benchmarks`` (and ``da2k``) to limit the run to; ``None`` is all that fit.
        device: where the model runs; ``None`` takes the best there is.
        batch: most images per forward pass.

    Returns:
        The content of the score file.

    Raises:
        EvaluationError: an unknown model, benchmark or protocol, damaged weights, a benchmark that was not ingested.
    """
    try:
        return _evaluate(model, params, root, progress, benchmarks, device, batch)
    except (ValueError, OSError) as error:
        raise EvaluationError(f"{model}: {error}") from error


def _evaluate(
    model: str,
    params: Params,
    root: Path,
    progress: Progress | None,
    benchmarks: Iterable[str] | None,
    device: str | None,
    batch: int,
) -> dict[str, Any]:
    name, _ = resolve(model, root)
    predictor = open_predictor(model, root, device)
    chosen = _chosen(name, predictor, params, benchmarks)
    started = time.perf_counter()
    passes = Passes(params, root, predictor, batch, progress, chosen)
    result: dict[str, Any] = {"model": name, "weights_sha256": predictor.digest, **predictor.describe()}
    if "da2k" in chosen:
        result["da2k"] = passes.da2k()
        result["robustness"] = {kind: passes.variant(kind) for kind in passes.variants}
        result["resolution"] = {f"{each:g}": passes.resolution(each) for each in passes.enlargements}
    result["benchmarks"] = {
        each: passes.benchmark(params.evaluate.benchmarks[each]) for each in chosen if each != "da2k"
    }
    forward, elapsed = predictor.seconds, time.perf_counter() - started
    result["seconds"] = round(elapsed, 3)
    result["forward_share"] = round(forward / elapsed, 4)
    result["latency_ms"] = None if predictor.is_baseline else round(predictor.latency_ms(), 3)
    write_whole(layout.scores(root, name), json.dumps(_without_nan(result), indent=1) + "\n")
    return result


def _chosen(name: str, predictor: Judged, params: Params, wanted: Iterable[str] | None) -> list[str]:
    """Benchmarks that fit the model, in the order of the settings."""
    known = ["da2k", *params.evaluate.benchmarks]
    unknown = [each for each in wanted or () if each not in known]
    if unknown:
        raise ValueError(f"no benchmark '{unknown[0]}' in evaluate.benchmarks; there are: {', '.join(known)}")
    if wanted is not None:
        return [each for each in known if each in set(wanted)]
    run = all_runs(params).get(name)
    key = run.key if run is not None and run.metric is not None else None
    ordered = ["da2k"] if predictor.quantity.is_depth else []
    return [*ordered, *(each for each, spec in params.evaluate.benchmarks.items() if _fits(key, predictor, spec))]


def _fits(key: str | None, predictor: Judged, spec: BenchmarkParams) -> bool:
    """Relative models take relative benchmarks; a metric model those of its own range.

    Args:
        key: of the metric run that made the model; ``None`` for any other model.
    """
    if predictor.quantity.relative:
        return spec.models == "relative" and get_protocol(spec.protocol).alignment != "none"
    return spec.models == key or (key not in ("indoor", "outdoor") and spec.kind == "metric")


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: ``null`` says that there is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return value
