"""One page on one model or folder of maps: how far the protocol alone moves its scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from dav2.documents import BenchmarkScores, ScoreFile
from dav2.files import write_whole
from dav2.report import charts


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark under one protocol.

    ``abs_rel`` and ``delta1`` are ``None`` where the score is void; ``times`` is AbsRel as a multiple of that under the
    benchmark's own protocol, ``None`` where either is missing or zero.
    """

    protocol: str
    hash: str
    describes: str
    abs_rel: float | None
    delta1: float | None
    low: float | None
    high: float | None
    times: float | None
    scored: int
    frames: int
    own: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """One benchmark under several protocols, its own first."""

    name: str
    rows: list[Row]

    @property
    def sentence(self) -> str:
        """How far the score moves."""
        errors = [row.abs_rel for row in self.rows if row.abs_rel is not None]
        if len(errors) < 2 or min(errors) <= 0:
            return "There is nothing to compare."
        least, most = min(errors), max(errors)
        return (
            f"AbsRel from {least:.3f} to {most:.3f}, a factor of {most / least:.2g}, over {len(errors)} protocols: "
            "same maps, same images."
        )


def moved(scores: ScoreFile) -> list[Moved]:
    """Benchmarks of a score file that were judged by more than one protocol."""
    return [
        Moved(name, [_row(entry, entry, own=True), *(_row(each, entry) for each in entry.protocols.values())])
        for name, entry in scores.benchmarks.items()
        if entry.protocols
    ]


def _row(entry: BenchmarkScores, own_entry: BenchmarkScores, own: bool = False) -> Row:
    error, reference = entry.metrics.get("abs_rel"), own_entry.metrics.get("abs_rel")
    low, high = entry.intervals.get("delta1", (None, None))
    return Row(
        protocol=entry.protocol,
        hash=entry.protocol_hash,
        describes=entry.describes,
        abs_rel=error,
        delta1=entry.metrics.get("delta1"),
        low=low,
        high=high,
        times=error / reference if error is not None and reference else None,
        scored=entry.scored,
        frames=entry.frames,
        own=own,
    )


def write_protocols_page(scores: ScoreFile, out: Path) -> Path:
    """Write the page of one score file; returns ``out``.

    Raises:
        ValueError: the file holds no benchmark under more than one protocol.
    """
    from dav2.report.page import environment

    tables = moved(scores)
    if not tables:
        raise ValueError(f"{scores.model} was judged by no other protocol than the benchmarks' own; say --protocol")
    drawn = [(table, _chart(table)) for table in tables]
    write_whole(out, environment().get_template("protocols.html").render(scores=scores, tables=drawn))
    return out


def _chart(table: Moved) -> Markup | None:
    rows = [
        charts.Dot(row.protocol.split("+")[-1], row.delta1, row.low, row.high, muted=not row.own)
        for row in table.rows
        if row.delta1 is not None
    ]
    return charts.dots(rows, f"δ₁ on {table.name} under each protocol, with its 95 % interval") if rows else None
