"""Write ``reports/``: the page, the metrics for ``dvc metrics show`` and the data for ``dvc plots``."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

from dav2.evaluation.report.gather import Gathered, gather
from dav2.files import write_whole
from dav2.params import Params


def write_report(
    params: Params, root: Path, out: Path | None = None, *, champion: dict[str, Any] | Path | None = None
) -> Path:
    """Write the report of the project at ``root``.

    Args:
        params: settings of the run.
        root: project folder with ``artifacts/``.
        out: folder to write to; ``root/reports`` if ``None``. It can be copied elsewhere as a whole.
        champion: score file (path or content) of the model that is in use, to say what changed against it.

    Returns:
        Path of ``index.html``.

    Raises:
        ValueError: nothing was scored, or a score file is damaged.
    """
    from dav2.evaluation.report.page import render

    out = root / "reports" if out is None else out
    gathered = gather(params, root)
    _copy_docs(gathered, out)
    write_whole(out / "metrics.json", json.dumps(metrics(gathered), indent=2) + "\n")
    write_whole(out / "plots" / "kinds.csv", _table(("model", "kind", "accuracy", "low", "high"), _kind_rows(gathered)))
    write_whole(out / "plots" / "training.csv", _table(("run", "step", "loss"), _loss_rows(gathered)))
    page = out / "index.html"
    write_whole(page, render(gathered, params, root, champion))
    return page


def metrics(gathered: Gathered) -> dict[str, Any]:
    """Scores as ``dvc metrics show`` lists them: ``da2k.<model>.accuracy``, ``benchmarks.<name>.<model>.<metric>``."""
    da2k = {
        model: {name: round(result[name], 5) for name in ("accuracy", "low", "high") if result[name] is not None}
        for model in gathered.scores
        if (result := gathered.da2k(model))
    }
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for model, scores in gathered.scores.items():
        for name, entry in scores.get("benchmarks", {}).items():
            values = {key: round(value, 5) for key, value in entry["metrics"].items() if value is not None}
            benchmarks.setdefault(name, {})[model] = values
    return {"da2k": da2k, "benchmarks": benchmarks}


def _copy_docs(gathered: Gathered, out: Path) -> None:
    """Data Docs beside the page, so that its links work wherever ``reports/`` is copied."""
    shutil.rmtree(out / "docs", ignore_errors=True)
    (out / "docs").mkdir(parents=True)
    for gate in gathered.gates:
        if gate.docs is not None:
            shutil.copytree(gate.docs, out / "docs" / gate.group)


def _kind_rows(gathered: Gathered) -> list[tuple[Any, ...]]:
    rows = []
    for model in gathered.scores:
        result = gathered.da2k(model)
        for kind, values in (result["kinds"] if result else {}).items():
            rows.append((model, kind, *(values[name] for name in ("accuracy", "low", "high"))))
    return rows


def _loss_rows(gathered: Gathered) -> list[tuple[Any, ...]]:
    return [
        (training.run, line["step"], line["loss"])
        for training in gathered.trainings
        for line in training.metrics
        if math.isfinite(line.get("loss", math.nan))
    ]


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
