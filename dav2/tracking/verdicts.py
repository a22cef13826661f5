"""What a gate says, and which scores of two versions may be held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from dav2.documents import BenchmarkScores, Evidence


@dataclass(frozen=True)
class Gate:
    """Verdict of one gate; ``detail`` gives the numbers it was decided on."""

    gate: str
    passed: bool
    detail: str

    def as_dict(self) -> dict[str, object]:
        """The verdict as plain values."""
        return asdict(self)


def shared_benchmarks(
    candidate: Evidence, champion: Evidence | None, metric: str
) -> Iterator[tuple[str, float, tuple[float, float]]]:
    """Name, candidate's score and champion's interval, where both were scored alike on more than one image."""
    before = benchmarks_of(champion)
    for name, ours in benchmarks_of(candidate).items():
        theirs = before.get(name)
        if theirs is None or (ours.protocol_hash, ours.data) != (theirs.protocol_hash, theirs.data):
            continue
        score, (low, high) = ours.metrics.get(metric), theirs.intervals.get(metric, (None, None))
        if score is not None and theirs.metrics.get(metric) is not None and low is not None and high is not None:
            yield name, score, (low, high)


def benchmarks_of(evidence: Evidence | None) -> dict[str, BenchmarkScores]:
    """Its scores by benchmark; none where nothing is known."""
    return evidence.scores.benchmarks if evidence is not None and evidence.scores is not None else {}
