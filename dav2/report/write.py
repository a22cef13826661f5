"""Write ``reports/``: the page, the metrics for ``dvc metrics show`` and the data for ``dvc plots``."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from dav2 import layout
from dav2.documents import ScoreFile
from dav2.files import write_whole
from dav2.params import Params
from dav2.report.gather import Gathered, gather

PARTS = 4
"""What progress counts: reading, Data Docs, tables, the page with its pictures."""
METRICS = "metrics"
"""Folder of a file for each model, below that of the report."""


def write_report(
    params: Params,
    root: Path,
    out: Path | None = None,
    *,
    champion: Callable[[str], ScoreFile | None] = lambda model: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the report of the project at ``root``.

    Args:
        params: settings of the run.
        root: project folder with ``artifacts/``.
        out: folder to write to; ``root/reports`` if ``None``. It can be copied elsewhere as a whole.
        champion: gives for the name of the report's main model the score file of the version that is in
            use, to say what changed against it; ``None`` where there is no such version.
        progress: told how many of the report's parts are there, of how many.

    Returns:
        Path of ``index.html``.

    Raises:
        ValueError: nothing was scored, or a score file is damaged.
    """
    from dav2.report.page import render

    out = root / layout.REPORTS if out is None else out
    progress(0, PARTS)
    gathered = gather(params, root)
    progress(1, PARTS)
    _copy_docs(gathered, out)
    progress(2, PARTS)
    shutil.rmtree(out / METRICS, ignore_errors=True)
    for model, scores in gathered.scores.items():
        write_whole(out / METRICS / f"{model}.json", json.dumps(metrics(scores), indent=2) + "\n")
    _write_plots(out / "plots", gathered)
    progress(3, PARTS)
    page = out / "index.html"
    write_whole(page, render(gathered, params, root, champion(main) if (main := gathered.main_model) else None))
    progress(PARTS, PARTS)
    return page


def metrics(scores: ScoreFile) -> dict[str, dict[str, float]]:
    """Scores of one model, as a row of ``dvc metrics show``: ``da2k`` with its interval, ``abs_rel`` by benchmark."""
    da2k = scores.known_da2k
    shares = {name: getattr(da2k, name) for name in ("accuracy", "low", "high")} if da2k is not None else {}
    errors = {name: entry.metrics.get("abs_rel") for name, entry in scores.benchmarks.items()}
    known = {
        key: {name: round(value, 5) for name, value in values.items() if value is not None}
        for key, values in (("da2k", shares), ("abs_rel", errors))
    }
    return {key: values for key, values in known.items() if values}


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
        da2k = gathered.da2k(model)
        kinds = da2k.kinds if da2k is not None else {}
        rows = [(kind, share.accuracy, share.low, share.high) for kind, share in kinds.items()]
        write_whole(folder / "kinds" / f"{model}.csv", _table(("kind", "accuracy", "low", "high"), rows))
    for training in gathered.trainings:
        losses = [(line.step, line.loss) for line in training.metrics if line.loss is not None]
        write_whole(folder / "training" / f"{training.run}.csv", _table(("step", "loss"), losses))


def _table(header: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
