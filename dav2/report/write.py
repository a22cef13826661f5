"""Write ``reports/``: the page, the metrics for ``dvc metrics show`` and the data for ``dvc plots``."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.files import write_whole
from dav2.params import Params
from dav2.report.gather import Gathered, gather


def write_report(
    params: Params,
    root: Path,
    out: Path | None = None,
    *,
    champion: Callable[[str], dict[str, Any] | None] = lambda model: None,
) -> Path:
    """Write the report of the project at ``root``.

    Args:
        params: settings of the run.
        root: project folder with ``artifacts/``.
        out: folder to write to; ``root/reports`` if ``None``. It can be copied elsewhere as a whole.
        champion: gives for the name of the report's main model the content of the score file of the version that is in
            use, to say what changed against it; ``None`` where there is no such version.

    Returns:
        Path of ``index.html``.

    Raises:
        ValueError: nothing was scored, or a score file is damaged.
    """
    from dav2.report.page import render

    out = root / layout.REPORTS if out is None else out
    gathered = gather(params, root)
    _copy_docs(gathered, out)
    write_whole(out / "metrics.json", json.dumps(metrics(gathered), indent=2) + "\n")
    _write_plots(out / "plots", gathered)
    page = out / "index.html"
    write_whole(page, render(gathered, params, root, champion(main) if (main := gathered.main_model) else None))
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


def _write_plots(folder: Path, gathered: Gathered) -> None:
    """A table for each model and each run: ``dvc plots`` draws all rows of one file as one line."""
    shutil.rmtree(folder, ignore_errors=True)
    for model in gathered.scores:
        kinds = (gathered.da2k(model) or {}).get("kinds", {})
        rows = [(kind, *(values[name] for name in ("accuracy", "low", "high"))) for kind, values in kinds.items()]
        write_whole(folder / "kinds" / f"{model}.csv", _table(("kind", "accuracy", "low", "high"), rows))
    for training in gathered.trainings:
        losses = [(line.step, line.loss) for line in training.metrics if line.loss is not None]
        write_whole(folder / "training" / f"{training.run}.csv", _table(("step", "loss"), losses))


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
