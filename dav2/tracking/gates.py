"""Gates of a promotion: each compares the evidence of a candidate with a limit or with the champion, and says why.

Thresholds are ``register`` in ``params.yaml``. A gate that does not apply (a metric model has no baseline on DA-2K, the
first version has no champion) is passed and says so; evidence that should be there and is not fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dav2.documents import Evidence
from dav2.params import RegisterParams


@dataclass(frozen=True)
class Gate:
    """Verdict of one gate; ``detail`` gives the numbers it was decided on."""

    gate: str
    passed: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return asdict(self)


def run_gates(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> list[Gate]:
    """All gates, in the order in which a person would ask.

    Args:
        candidate: its evidence, see :func:`dav2.tracking.registry.collect_evidence`.
        champion: evidence of the present champion, if there is one.
    """
    gates: list[Callable[[], Gate]] = [
        lambda: data_docs(candidate),
        lambda: accuracy(candidate, champion, limits),
        lambda: kinds(candidate, champion, limits),
        lambda: over_baseline(candidate, limits),
        lambda: depth_error(candidate, champion, limits),
        lambda: boundaries(candidate, champion, limits),
        lambda: latency(candidate, limits),
        lambda: size(candidate, limits),
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
    ours = candidate.da2k
    if ours is None:
        return Gate(name, False, "the candidate has no DA-2K score")
    if champion is None:
        return Gate(name, True, f"{ours['accuracy']:.3f}; there is no champion yet")
    theirs = champion.da2k
    if theirs is None:
        return Gate(name, True, f"{ours['accuracy']:.3f}; the champion has no DA-2K score")
    if ours.get("data") != theirs.get("data"):
        return Gate(name, False, "the champion was scored on other data; register it again with scores on this data")
    low, high = theirs["low"], theirs["high"]
    # A single image has no interval; then the score itself is the bar.
    known = low is not None and high is not None
    least = (low if known else theirs["accuracy"]) - limits.max_drop
    interval = f"[{low:.3f}, {high:.3f}]" if known else "(one image, no interval)"
    detail = f"{ours['accuracy']:.3f}, champion {theirs['accuracy']:.3f} {interval}; at least {least:.3f} is asked"
    return Gate(name, ours["accuracy"] >= least, detail)


def kinds(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no kind of scene is the accuracy below the champion's by more than ``register.max_kind_drop``."""
    name = "kinds of scenes"
    ours, theirs = candidate.da2k, champion.da2k if champion is not None else None
    if ours is None or theirs is None:
        return Gate(name, ours is not None, "there is nothing to compare with" if ours else "no DA-2K score")
    drops = {
        kind: theirs["kinds"][kind]["accuracy"] - score["accuracy"]
        for kind, score in ours.get("kinds", {}).items()
        if kind in theirs.get("kinds", {})
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
    if ours is None or not known:
        return Gate(name, False, "no DA-2K score of the candidate or of a baseline; run 'dvc repro'")
    best = max(known, key=lambda each: known[each])
    ahead = ours["accuracy"] - known[best]
    detail = f"{ahead:+.3f} over {best} ({known[best]:.3f}); at least {limits.min_over_baseline:+.3f} is asked"
    return Gate(name, ahead >= limits.min_over_baseline, detail)


def depth_error(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no benchmark is AbsRel above the champion's confidence interval by more than ``register.max_error_rise``."""
    rows = []
    for name, ours, theirs in _shared_benchmarks(candidate, champion, "abs_rel"):
        most = theirs["intervals"]["abs_rel"][1] * (1.0 + limits.max_error_rise)
        rows.append((ours["metrics"]["abs_rel"], most, name, ours["metrics"]["abs_rel"] <= most))
    return _benchmark_gate("depth error", rows, "AbsRel {0:.4f}, at most {1:.4f} is allowed, on {2}")


def boundaries(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """On no benchmark is boundary F1 below the champion's interval by more than ``register.max_boundary_drop``."""
    rows = []
    for name, ours, theirs in _shared_benchmarks(candidate, champion, "boundary_f1"):
        least = theirs["intervals"]["boundary_f1"][0] - limits.max_boundary_drop
        rows.append((ours["metrics"]["boundary_f1"], least, name, ours["metrics"]["boundary_f1"] >= least))
    return _benchmark_gate("boundary quality", rows, "boundary F1 {0:.4f}, at least {1:.4f} is asked, on {2}")


def _shared_benchmarks(
    candidate: Evidence, champion: Evidence | None, metric: str
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Benchmarks on which both were scored by the same protocol on the same data of more than one image."""
    before = champion.scores.get("benchmarks", {}) if champion is not None else {}
    for name, ours in candidate.scores.get("benchmarks", {}).items():
        theirs = before.get(name)
        if theirs is None or any(ours.get(key) != theirs.get(key) for key in ("protocol_hash", "data")):
            continue
        scored = [each.get("metrics", {}).get(metric) is not None for each in (ours, theirs)]
        interval = theirs.get("intervals", {}).get(metric, [None])
        if all(scored) and None not in interval:
            yield name, ours, theirs


def _benchmark_gate(name: str, rows: list[tuple[float, float, str, bool]], text: str) -> Gate:
    if not rows:
        return Gate(name, True, "no benchmark in common with a champion")
    failed = [text.format(*row) for row in rows if not row[3]]
    return Gate(name, not failed, "; ".join(failed or [text.format(*row) for row in rows]))


def latency(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Milliseconds of one prediction within ``register.max_latency_ms``."""
    return _budget("latency", candidate.scores.get("latency_ms"), limits.max_latency_ms, "ms")


def size(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Megabytes of the weights file within ``register.max_megabytes``."""
    return _budget("size", candidate.megabytes, limits.max_megabytes, "MB")


def _budget(name: str, value: float | None, limit: float | None, unit: str) -> Gate:
    measured = "not measured" if value is None else f"{value:.1f} {unit}"
    if limit is None:
        return Gate(name, True, f"{measured}; no budget is set")
    return Gate(name, value is not None and value <= limit, f"{measured}; at most {limit:.1f} {unit} is allowed")
