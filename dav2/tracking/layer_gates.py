"""Gates of models of normals, appearance and light: their own scores against trivial baselines and the champion.

Normals are judged by the mean angle to the truth in degrees, every layer of appearance and light by its PSNR. SSIM and
the recomposition have no vote: a picture taken for albedo under even light recomposes without any error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dav2.documents import BenchmarkScores, Evidence
from dav2.maps import LAYERS, Quantity
from dav2.params import RegisterParams
from dav2.tracking.verdicts import Gate, benchmarks_of

ANGLE, PSNR = "mean", "_psnr"
TELLING = 40.0
"""PSNR in dB, an error of 1 % of the range: what a trivial baseline knows so well (no metal anywhere) tells no models
apart, and is passed over."""


@dataclass(frozen=True)
class Compared:
    """A score of the candidate beside the one that it is held against."""

    benchmark: str
    metric: str
    ours: float
    least: float
    beside: str

    @property
    def told(self) -> str:
        """Both scores in words."""
        what, bound = f"PSNR of {self.metric.removesuffix(PSNR)}", "at least {} is asked"
        if self.metric == ANGLE:
            what, bound = "mean angle", "at most {} is allowed"
        ours, least = shown(self.metric, self.ours), shown(self.metric, self.least)
        return f"{what} {ours} on {self.benchmark}, {self.beside}; {bound.format(least)}"

    @property
    def passed(self) -> bool:
        """Whether the candidate's score is good enough."""
        return self.ours <= self.least if self.metric == ANGLE else self.ours >= self.least


def predicts_layers(evidence: Evidence) -> bool:
    """Whether the version predicts layers, and not how far things are."""
    return evidence.predicts in LAYERS


def gates_of_layers(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> list[Callable[[], Gate]]:
    """The gates that such a model has in place of those of depth."""
    return [
        lambda: over_layer_baselines(candidate, limits),
        lambda: against_champion(candidate, champion, limits),
    ]


def judged_metrics(entry: BenchmarkScores) -> dict[str, float | None]:
    """Of the scores of a benchmark, those that gates look at; ``None`` is void."""
    layers = {f"{quantity}{PSNR}" for quantity in LAYERS if quantity is not Quantity.NORMALS}
    return {name: value for name, value in entry.metrics.items() if name == ANGLE or name in layers}


def shown(metric: str, value: float) -> str:
    """A score with its unit."""
    return f"{value:.2f}°" if metric == ANGLE else f"{value:.2f} dB"


def over_layer_baselines(candidate: Evidence, limits: RegisterParams) -> Gate:
    """Every layer is better than the best trivial baseline, by ``register.min_angle_gain`` or ``min_psnr_gain``."""
    name = "over trivial baselines"
    missing = _unscored(candidate)
    if missing:
        return Gate(name, False, missing)
    rows = []
    for benchmark, entry in _judged(candidate):
        for metric, ours in judged_metrics(entry).items():
            best = _best_baseline(candidate, benchmark, entry, metric)
            if best is None:
                why = f"no trivial baseline has a score on {benchmark} as it is now; evaluate and register it again"
                return Gate(name, False, why)
            baseline, value = best
            if ours is None or (metric != ANGLE and value >= TELLING):
                continue
            least = value * (1 - limits.min_angle_gain) if metric == ANGLE else value + limits.min_psnr_gain
            rows.append(Compared(benchmark, metric, ours, least, f"{baseline} {shown(metric, value)}"))
    if not rows:
        return Gate(name, False, "no layer was scored on which trivial baselines are not nearly perfect")
    return _verdict(name, rows)


def against_champion(candidate: Evidence, champion: Evidence | None, limits: RegisterParams) -> Gate:
    """No layer is worse than the champion's interval by ``register.max_angle_rise`` or ``max_psnr_drop``."""
    name = "layers against champion"
    missing = _unscored(candidate)
    if missing:
        return Gate(name, False, missing)
    if champion is None:
        return Gate(name, True, "there is no champion yet")
    if champion.predicts != candidate.predicts:
        why = f"the champion predicts {champion.predicts or 'depth'}, this one {candidate.predicts}"
        return Gate(name, False, f"{why}; register it under a name of its own")
    before = dict(_judged(champion))
    shared = [
        (benchmark, ours, before[benchmark])
        for benchmark, ours in _judged(candidate)
        if benchmark in before and _alike(ours, before[benchmark])
    ]
    if before and not shared:
        return Gate(name, False, "the champion was scored on other data or by other rules; register it again")
    rows = [row for benchmark, ours, theirs in shared for row in _held(benchmark, ours, theirs, limits)]
    return _verdict(name, rows) if rows else Gate(name, True, "the champion has no scores to compare with")


def _held(benchmark: str, ours: BenchmarkScores, theirs: BenchmarkScores, limits: RegisterParams) -> Iterator[Compared]:
    found = judged_metrics(ours)
    for metric, value in judged_metrics(theirs).items():
        score = found.get(metric)
        if score is None or value is None:
            continue
        low, high = theirs.intervals.get(metric, (None, None))
        # A single image has no interval; then the score itself is the bar.
        if metric == ANGLE:
            least = (value if high is None else high) * (1 + limits.max_angle_rise)
        else:
            least = (value if low is None else low) - limits.max_psnr_drop
        yield Compared(benchmark, metric, score, least, f"champion {shown(metric, value)}")


def _verdict(name: str, rows: list[Compared]) -> Gate:
    failed = [row.told for row in rows if not row.passed]
    return Gate(name, not failed, "; ".join(failed or [row.told for row in rows]))


def _judged(evidence: Evidence) -> Iterator[tuple[str, BenchmarkScores]]:
    for benchmark, entry in benchmarks_of(evidence).items():
        if judged_metrics(entry):
            yield benchmark, entry


def _unscored(candidate: Evidence) -> str:
    """Why there is nothing to judge the candidate by; empty where there is."""
    judged = dict(_judged(candidate))
    if not judged:
        return f"no benchmark judged its {candidate.predicts}; 'evaluate.benchmarks' needs one whose protocol does"
    void = [name for name, entry in judged.items() if None in judged_metrics(entry).values()]
    return f"its scores on {', '.join(void)} are void: it failed on a frame" if void else ""


def _best_baseline(
    candidate: Evidence, benchmark: str, entry: BenchmarkScores, metric: str
) -> tuple[str, float] | None:
    """Name and score of the trivial baseline that is best by a metric, on the same data by the same rules."""
    found = {}
    for baseline, judged in candidate.layer_baselines.items():
        theirs = judged.get(benchmark)
        value = theirs.metrics.get(metric) if theirs is not None and _alike(entry, theirs) else None
        if value is not None:
            found[baseline] = value
    if not found:
        return None
    best = (min if metric == ANGLE else max)(found, key=lambda each: found[each])
    return best, found[best]


def _alike(ours: BenchmarkScores, theirs: BenchmarkScores) -> bool:
    return (ours.protocol_hash, ours.data) == (theirs.protocol_hash, theirs.data)
