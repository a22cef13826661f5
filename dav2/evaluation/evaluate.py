"""Score one model on DA-2K and on every benchmark that fits it; write ``artifacts/scores/<model>.json``.

The file holds per-image outcomes beside the summary, so that comparisons are paired and failures can be shown later
without running the model again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from dav2 import layout
from dav2.documents import DocumentError, ScoreFile
from dav2.evaluation.baselines import LAYER_BASELINES
from dav2.evaluation.passes import Passes, Progress
from dav2.evaluation.predictors import open_predictor, resolve
from dav2.maps import Quantity
from dav2.params import BenchmarkParams, Params
from dav2.runs import all_runs
from dav2.scores.layer_protocols import LayerProtocol, declared
from dav2.scores.protocols import Protocol, chosen_protocols


class EvaluationError(ValueError):
    """A model cannot be scored; the message says which file is missing or which name is wrong, and what to do."""


def evaluate_model(
    model: str,
    params: Params,
    root: Path,
    progress: Progress | None = None,
    *,
    benchmarks: Iterable[str] | None = None,
    device: str | None = None,
    batch: int = 8,
    protocols: Sequence[str] = (),
) -> ScoreFile:
    """Score a model and write its score file.

    Args:
        model: a training run, a model directory or weights file, or a baseline: ``baseline-constant|row|brightness`` of
            depth, ``baseline-facing`` of normals, ``baseline-picture|grey`` of appearance and light.
        params: settings; ``evaluate`` says what is scored.
        root: project folder.
        progress: called with (frames done, frames in all).
        benchmarks: names from ``evaluate.benchmarks`` (and ``da2k``) to limit the run to; ``None`` is all that fit.
        device: where the model runs; ``None`` takes the best there is.
        batch: most images per forward pass.
        protocols: by which every depth benchmark is judged beside its own
            (:func:`dav2.scores.protocols.chosen_protocols`).

    Returns:
        The content of the score file.

    Raises:
        EvaluationError: an unknown model, benchmark or protocol, damaged weights, a benchmark that was not ingested.
    """
    try:
        return _evaluate(model, params, root, progress, benchmarks, device, batch, protocols)
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
    protocols: Sequence[str],
) -> ScoreFile:
    name, _ = resolve(model, root)
    predictor = open_predictor(model, root, device)
    chosen = chosen_benchmarks(name, predictor.quantity, params, benchmarks, layers=predictor.layers)
    others = other_protocols(chosen, predictor.quantity, params, protocols)
    started = time.perf_counter()
    passes = Passes(params, root, predictor, batch, progress, chosen, others=others)
    ordered = "da2k" in chosen
    found = {
        "da2k": passes.da2k() if ordered else None,
        "robustness": {kind: passes.variant(kind) for kind in passes.variants if ordered},
        "resolution": {f"{each:g}": passes.resolution(each) for each in passes.enlargements if ordered},
        "benchmarks": {each: passes.benchmark(each) for each in chosen if each != "da2k"},
    }
    forward, elapsed = predictor.seconds, time.perf_counter() - started
    cost = {
        "seconds": round(elapsed, 3),
        "forward_share": round(forward / elapsed, 4),
        "latency_ms": None if predictor.is_baseline else round(predictor.latency_ms(), 3),
    }
    about = {**predictor.describe(), "model": name, "weights_sha256": predictor.digest}
    result = ScoreFile.model_validate({**about, **found, **cost})
    result.write(layout.scores(root, name))
    return result


def chosen_benchmarks(
    name: str,
    quantity: Quantity,
    params: Params,
    wanted: Iterable[str] | None,
    *,
    layers: tuple[Quantity, ...] = (),
    part: bool = False,
) -> list[str]:
    """Benchmarks that fit a model of this name that predicts ``quantity``, or those wanted, in the settings' order.

    Args:
        layers: all that the model predicts, where that is more than ``quantity``.
        part: take benchmarks of several layers of which only some are predicted
            (:func:`dav2.scores.layer_protocols.narrowed`).

    Raises:
        ValueError: a wanted one is not in the settings, or judges what the model does not predict.
    """
    predicted = set(layers or (quantity,))
    known = ["da2k", *params.evaluate.benchmarks]
    unknown = [each for each in wanted or () if each not in known]
    if unknown:
        raise ValueError(f"no benchmark '{unknown[0]}' in evaluate.benchmarks; there are: {', '.join(known)}")
    if wanted is not None:
        chosen = [each for each in known if each in set(wanted)]
        for each in chosen:
            judged = set(_judged(params.evaluate.benchmarks[each])) if each != "da2k" else set()
            enough = judged & predicted if part and judged else judged <= predicted
            if not enough or not (judged or quantity.is_depth):
                said = ", ".join(sorted(judged)) or "depth"
                raise ValueError(f"benchmark '{each}' judges {said}; the model predicts {', '.join(sorted(predicted))}")
        return chosen
    run = all_runs(params).get(name)
    key = run.key if run is not None and run.metric is not None else None
    ordered = ["da2k"] if quantity.is_depth else []
    return [
        *ordered,
        *(each for each, spec in params.evaluate.benchmarks.items() if _fits(key, quantity, predicted, spec, part)),
    ]


def beaten_baselines(scored: ScoreFile, params: Params, root: Path) -> list[str]:
    """Trivial baselines of layers that a model must beat and that have no scores yet on what it was scored on.

    Args:
        scored: the model's scores.
        params: settings.
        root: project folder.
    """
    wanted = {name: (entry.data, entry.protocol_hash) for name, entry in scored.benchmarks.items()}
    waiting = []
    for baseline, (predicted, _) in LAYER_BASELINES.items():
        judged = {name: set(_judged(params.evaluate.benchmarks[name])) for name in wanted}
        fitting = [name for name, layers in judged.items() if layers and layers <= set(predicted)]
        try:
            there = ScoreFile.read(layout.scores(root, baseline)).benchmarks if fitting else {}
        except DocumentError:
            there = {}
        if any(name not in there or (there[name].data, there[name].protocol_hash) != wanted[name] for name in fitting):
            waiting.append(baseline)
    return waiting


def other_protocols(
    chosen: Iterable[str], quantity: Quantity, params: Params, wanted: Sequence[str]
) -> dict[str, list[Protocol]]:
    """Protocols beside its own by which each chosen benchmark is judged; those that need metres only where there are.

    Raises:
        ValueError: a name is unknown, or fits no benchmark at all.
    """
    own = {each: declared(params.evaluate.benchmarks[each].protocol) for each in chosen if each != "da2k"}
    found = {each: chosen_protocols(one, wanted) for each, one in own.items() if isinstance(one, Protocol)}
    taken = {
        each: [one for one in protocols if one.takes_relative or not quantity.relative]
        for each, protocols in found.items()
    }
    if wanted and "all" not in wanted and not any(taken.values()):
        why = f"they measure metres, and these are {quantity.unit}" if any(found.values()) else "of none of these sets"
        raise ValueError(f"--protocol {', '.join(wanted)}: nothing beside the benchmarks' own protocols ({why})")
    return taken


def _judged(spec: BenchmarkParams) -> tuple[Quantity, ...]:
    """Layers that a benchmark judges; none where it judges depth."""
    protocol = declared(spec.protocol)
    return protocol.quantities if isinstance(protocol, LayerProtocol) else ()


def _fits(key: str | None, quantity: Quantity, predicted: set[Quantity], spec: BenchmarkParams, part: bool) -> bool:
    """Relative models take relative benchmarks; a metric model those of its own range; layers those that judge them.

    Args:
        key: of the metric run that made the model; ``None`` for any other model.
    """
    protocol = declared(spec.protocol)
    if isinstance(protocol, LayerProtocol):
        return bool(set(protocol.quantities) & predicted) if part else set(protocol.quantities) <= predicted
    if quantity.relative:
        return spec.models == "relative" and protocol.takes_relative
    return quantity.is_depth and spec.kind == "metric" and key in (None, spec.models)
