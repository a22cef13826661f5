"""Families of models side by side, and what their codecs can reach at best."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from dav2 import layout
from dav2.evaluation.baselines import PREFIX
from dav2.params import Params
from dav2.report.gather import NOT_RELATIVE, Gathered
from dav2.runs import all_runs

_COMMON = ("source", "frames", "psnr")
"""Of a row of a ceiling, whatever the codec is for."""
CEILING = "ceiling.json"
"""File of a codec that says what it loses (``dav2.families.marigold.ceiling``)."""


@dataclass(frozen=True, slots=True)
class Side:
    """One relative model or baseline.

    Attributes:
        family: empty for baselines.
        passes: steps × predictions merged, where the model draws.
        seconds: that its training took.
        errors: AbsRel by benchmark.
        edges: boundary F1 by benchmark.
    """

    model: str
    family: str
    quantity: str
    passes: str
    parameters: int
    latency_ms: float | None
    seconds: float | None
    da2k: float | None
    errors: dict[str, float | None] = field(default_factory=dict)
    edges: dict[str, float | None] = field(default_factory=dict)


def side_by_side(gathered: Gathered, params: Params) -> dict[str, object] | None:
    """Rows and columns of the table; ``None`` where relative models of one family alone were scored."""
    runs = all_runs(params)
    relative = [name for name in gathered.scores if gathered.scores[name].quantity not in NOT_RELATIVE]
    known = {name: runs[name].family for name in relative if name in runs}
    if len(set(known.values())) < 2:
        return None
    seconds = {training.run: training.seconds for training in gathered.trainings}
    shown = [name for name in relative if name in known or name in gathered.baselines]
    rows = [_side(name, known.get(name, ""), gathered, seconds.get(name)) for name in shown]
    benchmarks = [name for name in params.evaluate.benchmarks if any(name in row.errors for row in rows)]
    edges = [name for name in benchmarks if any(row.edges.get(name) is not None for row in rows)]
    protocols = {name: params.evaluate.benchmarks[name].protocol for name in benchmarks}
    return {"rows": rows, "benchmarks": benchmarks, "edges": edges, "protocols": protocols, "prefix": PREFIX}


def _side(name: str, family: str, gathered: Gathered, seconds: float | None) -> Side:
    scores = gathered.scores[name]
    metrics = {key: result.metrics for key, result in scores.benchmarks.items()}
    da2k = gathered.da2k(name)
    return Side(
        model=name,
        family=family,
        quantity=scores.quantity,
        passes=f"{scores.steps} × {scores.ensemble}" if scores.steps is not None else "",
        parameters=scores.parameters or 0,
        latency_ms=scores.latency_ms,
        seconds=seconds,
        da2k=da2k.accuracy if da2k is not None else None,
        errors={key: each.get("abs_rel") for key, each in metrics.items()},
        edges={key: each.get("boundary_f1") for key, each in metrics.items()},
    )


def ceilings(params: Params, root: Path) -> list[dict[str, object]]:
    """What every codec's stage measured: ``name``, ``kind``, ``target`` and ``rows`` by data set.

    ``measured`` names the columns where it codes layers, and is empty where it codes depth.
    """
    found = []
    for name in params.codecs:
        file = layout.codec(root, name) / CEILING
        if file.is_file():
            known = json.loads(file.read_text(encoding="utf-8"))
            columns = dict.fromkeys(each for row in known["rows"] for each in row if each not in _COMMON)
            found.append({"name": name, **known, "measured": [] if "abs_rel" in columns else list(columns)})
    return found
