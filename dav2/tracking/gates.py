"""Gates of a promotion: each compares the evidence of a candidate with a limit or with the champion, and says why.

Thresholds are ``register`` in ``params.yaml``. A gate that does not apply (a metric model has no baseline on DA-2K, the
first version has no champion) is passed and says so; evidence that should be there and is not fails.
"""

from __future__ import annotations

from collections.abc import Callable

from dav2.documents import Evidence
from dav2.licences.lines import commercial, in_the_way
from dav2.params import RegisterParams
from dav2.tracking.layer_gates import gates_of_layers, predicts_layers
from dav2.tracking.verdicts import Gate, shared_benchmarks


def run_gates(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> list[Gate]:
    """All gates, in the order in which a person would ask; a model of layers is asked for them instead of depth.

    Args:
        candidate: its evidence, see :func:`dav2.tracking.evidence.collect_evidence`.
        champion: evidence of the present champion, if there is one.
    """
    of_depth: list[Callable[[], Gate]] = [
        lambda: accuracy(candidate, champion, limits),
        lambda: kinds(candidate, champion, limits),
        lambda: over_baseline(candidate, limits),
        lambda: depth_error(candidate, champion, limits),
        lambda: boundaries(candidate, champion, limits),
    ]
    gates: list[Callable[[], Gate]] = [
        lambda: data_docs(candidate),
        *(gates_of_layers(candidate, champion, limits) if predicts_layers(candidate) else of_depth),
        lambda: latency(candidate, limits),
        lambda: size(candidate, limits),
        lambda: licence(candidate, limits),
    ]
    return [gate() for gate in gates]


def data_docs(candidate: Evidence) -> Gate:
    """The data gates of everything the model was trained and judged on passed."""
    needed, quality = candidate.validated, candidate.quality
    if not needed:
        return Gate("data docs", False, "the version does not say which data it needs; register it again")
    wrong = [f"{group} was not validated" for group in needed if group not in quality]
    wrong += [f"{group} failed" for group in needed if group in quality and not quality[group].passed]
    return Gate("data docs", not wrong, "; ".join(wrong) or f"{', '.join(needed)} passed")


def accuracy(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """DA-2K accuracy is not below the champion's confidence interval by more than ``register.max_drop``."""
    name = "DA-2K against champion"
    scored = candidate.da2k
    ours = scored.accuracy if scored is not None else None
    if scored is None or ours is None:
        return Gate(name, False, "the candidate has no DA-2K score")
    if champion is None:
        return Gate(name, True, f"{ours:.3f}; there is no champion yet")
    if predicts_layers(champion):
        return Gate(name, False, f"the champion predicts {champion.predicts}; register it under a name of its own")
    theirs = champion.da2k
    if theirs is None or theirs.accuracy is None:
        return Gate(name, True, f"{ours:.3f}; the champion has no DA-2K score")
    if scored.data != theirs.data:
        return Gate(name, False, "the champion was scored on other data; register it again with scores on this data")
    # A single image has no interval; then the score itself is the bar.
    bar, interval = theirs.accuracy, "(one image, no interval)"
    if theirs.low is not None and theirs.high is not None:
        bar, interval = theirs.low, f"[{theirs.low:.3f}, {theirs.high:.3f}]"
    least = bar - limits.max_drop
    detail = f"{ours:.3f}, champion {theirs.accuracy:.3f} {interval}; at least {least:.3f} is asked"
    return Gate(name, ours >= least, detail)


def kinds(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no kind of scene is the accuracy below the champion's by more than ``register.max_kind_drop``."""
    name = "kinds of scenes"
    ours, theirs = candidate.da2k, champion.da2k if champion is not None else None
    if ours is None or theirs is None:
        return Gate(name, ours is not None, "there is nothing to compare with" if ours else "no DA-2K score")
    drops = {
        kind: before - score.accuracy
        for kind, score in ours.kinds.items()
        if kind in theirs.kinds and score.accuracy is not None and (before := theirs.kinds[kind].accuracy) is not None
    }
    if not drops:
        return Gate(name, True, "champion and candidate share no kind")
    worst = max(drops, key=lambda kind: drops[kind])
    detail = f"largest drop {drops[worst]:+.3f} on {worst}; at most {limits.max_kind_drop:.3f} is allowed"
    return Gate(name, drops[worst] <= limits.max_kind_drop, detail)


def over_baseline(candidate: Evidence, limits: RegisterParams) -> Gate:
    """A relative model beats the best trivial baseline by ``register.min_over_baseline``."""
    name = "over trivial baselines"
    if candidate.kind == "metric":
        return Gate(name, True, "asked of relative models only")
    ours = candidate.da2k
    known = {each: value for each, value in candidate.baselines.items() if value is not None}
    if ours is None or ours.accuracy is None or not known:
        return Gate(name, False, "no DA-2K score of the candidate or of a baseline; run 'dvc repro'")
    best = max(known, key=lambda each: known[each])
    ahead = ours.accuracy - known[best]
    detail = f"{ahead:+.3f} over {best} ({known[best]:.3f}); at least {limits.min_over_baseline:+.3f} is asked"
    return Gate(name, ahead >= limits.min_over_baseline, detail)


def depth_error(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no benchmark is AbsRel above the champion's confidence interval by more than ``register.max_error_rise``."""
    rows = []
    for name, ours, (_, high) in shared_benchmarks(candidate, champion, "abs_rel"):
        most = high * (1.0 + limits.max_error_rise)
        rows.append((ours, most, name, ours <= most))
    return _benchmark_gate("depth error", rows, "AbsRel {0:.4f}, at most {1:.4f} is allowed, on {2}")


def boundaries(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no benchmark is boundary F1 below the champion's interval by more than ``register.max_boundary_drop``."""
    rows = []
    for name, ours, (low, _) in shared_benchmarks(candidate, champion, "boundary_f1"):
        least = low - limits.max_boundary_drop
        rows.append((ours, least, name, ours >= least))
    return _benchmark_gate("boundary quality", rows, "boundary F1 {0:.4f}, at least {1:.4f} is asked, on {2}")


def _benchmark_gate(name: str, rows: list[tuple[float, float, str, bool]], text: str) -> Gate:
    if not rows:
        return Gate(name, True, "no benchmark in common with a champion")
    failed = [text.format(*row) for row in rows if not row[3]]
    return Gate(name, not failed, "; ".join(failed or [text.format(*row) for row in rows]))


def latency(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Milliseconds of one prediction within ``register.max_latency_ms``."""
    measured = candidate.scores.latency_ms if candidate.scores is not None else None
    return _budget("latency", measured, limits.max_latency_ms, "ms")


def size(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Megabytes of the weights file within ``register.max_megabytes``."""
    return _budget("size", candidate.megabytes, limits.max_megabytes, "MB")


def licence(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Everything the model was made from allows the use that ``register.use`` asks for; unknown is not allowed."""
    name, lines = "licence", candidate.licences
    if lines is None:
        why = "the version does not say which licences it stands on; register it again"
        return Gate(name, limits.use == "any", why)
    blocking = in_the_way(lines)
    state = "; ".join(blocking) or f"all {len(lines)} things it was made from allow commercial use"
    if limits.use == "any":
        return Gate(name, True, f"any use is asked; {f'not for commercial use: {state}' if blocking else state}")
    return Gate(name, commercial(lines) == "yes", f"commercial use is asked; {state or 'nothing is known of it'}")


def _budget(name: str, value: float | None, limit: float | None, unit: str) -> Gate:
    measured = "not measured" if value is None else f"{value:.1f} {unit}"
    if limit is None:
        return Gate(name, True, f"{measured}; no budget is set")
    return Gate(name, value is not None and value <= limit, f"{measured}; at most {limit:.1f} {unit} is allowed")
