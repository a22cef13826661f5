"""The page itself: gathered facts → template values → one HTML file without outside requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dav2 import layout
from dav2.documents import BenchmarkScores, ScoreFile
from dav2.durations import spoken
from dav2.evaluation.baselines import PREFIX
from dav2.evaluation.compare import Comparison, compare
from dav2.params import Params
from dav2.report import charts, families, pictures
from dav2.report.gather import Gathered, Training
from dav2.runs import TEACHER

PUBLISHED = Path(__file__).parent / "published.yaml"
_COLOURS = ("albedo", "shading", "residual", "roughness", "metallicity")
COLUMNS = {
    "abs_rel": "AbsRel ↓",
    "delta1": "δ₁ ↑",
    "rmse": "RMSE ↓",
    "silog": "SILog ↓",
    "boundary_f1": "boundary F1 ↑",
    "dbe_accuracy": "edge distance ↓",
    "mean": "angle, mean ↓",
    "median": "angle, median ↓",
    "below_11.25": "below 11.25° ↑",
    "below_30": "below 30° ↑",
    **{f"{layer}_{metric}": f"{layer} {metric.upper()} ↑" for layer in _COLOURS for metric in ("psnr", "ssim")},
    "recomposition_psnr": "recomposition PSNR ↑",
}
"""Benchmark metrics shown on the page, in order; the score files hold all of them."""


def render(gathered: Gathered, params: Params, root: Path, champion: ScoreFile | None) -> str:
    """The page as HTML; see :func:`dav2.report.write_report`."""
    main = gathered.main_model
    runs = [name for name in gathered.relative if layout.model(root, name).is_dir()]
    values = {
        "scale": params.scale,
        "main": main,
        "baseline_prefix": PREFIX,
        "verdict": _verdict(gathered, main),
        "models": gathered.scores,
        "others": gathered.others,
        "da2k": {model: result for model in gathered.scores if (result := gathered.da2k(model))},
        "accuracy_chart": _accuracy_chart(gathered),
        "kinds": _kinds(gathered),
        "benchmarks": _benchmarks(gathered),
        "columns": COLUMNS,
        "changes": _changes(gathered, champion, params),
        "gallery": pictures.gallery(runs, params, root),
        "runs": runs,
        "failures": pictures.failures(main, gathered.scores[main], params, root) if main else [],
        "curves": [_curves(training) for training in gathered.trainings if training.metrics],
        "robustness": _variants(gathered, "robustness"),
        "resolution": _variants(gathered, "resolution"),
        "published": yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")),
        "data": gathered.data,
        "labels": gathered.labels,
        "gates": gathered.gates,
        "lineage": _lineage(gathered),
        "lineages": gathered.lineages,
        "licences": _licences(gathered),
        "trainings": gathered.trainings,
        "problems": _problems(gathered),
        "sides": families.side_by_side(gathered, params),
        "ceilings": families.ceilings(params, root),
    }
    return environment().get_template("report.html").render(values)


def environment() -> Environment:
    """Templates of the report's pages, with their filters."""
    made = Environment(
        loader=PackageLoader("dav2.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"percent": _percent, "number": _number, "short": _short, "duration": spoken}
    return made


def _verdict(gathered: Gathered, main: str | None) -> dict[str, object] | None:
    best = gathered.best_baseline()
    result = gathered.da2k(main) if main else None
    if main is None or result is None:
        return None
    verdict = {
        "model": main,
        **{name: getattr(result, name) for name in ("accuracy", "low", "high", "pairs", "images")},
    }
    if best is not None:
        comparisons = compare(gathered.scores[main], gathered.scores[best])[0]
        if comparisons:
            verdict |= {"baseline": best, "ahead": comparisons[0].difference}
    return verdict


def _accuracy_chart(gathered: Gathered) -> Markup | None:
    rows = [
        charts.Dot(model, result.accuracy or 0.0, result.low, result.high, model.startswith(PREFIX))
        for model in gathered.scores
        if (result := gathered.da2k(model))
    ]
    rows.sort(key=lambda row: (row.muted, -row.value))
    return charts.dots(rows, "DA-2K accuracy of every model with its 95 % interval") if rows else None


def _kinds(gathered: Gathered) -> dict[str, object] | None:
    table = {
        model: {kind: share.accuracy or 0.0 for kind, share in result.kinds.items()}
        for model in gathered.scores
        if (result := gathered.da2k(model))
    }
    shown = [model for model in gathered.relative if model in table][: len(charts.MARKS)]
    if not shown:
        return None
    first = gathered.da2k(shown[0])
    pairs = {kind: share.pairs for kind, share in first.kinds.items()} if first is not None else {}
    return {
        "chart": charts.kinds(table, shown, gathered.best_baseline(), "DA-2K accuracy per scene kind"),
        "marks": list(zip(shown, charts.MARKS, strict=False)),
        "baseline": gathered.best_baseline(),
        "table": table,
        "pairs": pairs,
    }


class _Scored(TypedDict):
    """A model's row of a benchmark's table."""

    model: str
    metrics: Mapping[str, float | None]
    scored: int


def _benchmarks(gathered: Gathered) -> list[dict[str, object]]:
    """One entry per benchmark: its protocol, the columns it has, and a row per model."""
    heads: dict[str, BenchmarkScores] = {}
    scored: dict[str, list[_Scored]] = {}
    for model, scores in gathered.scores.items():
        for name, result in scores.benchmarks.items():
            heads.setdefault(name, result)
            row: _Scored = {"model": model, "metrics": result.metrics, "scored": result.scored}
            scored.setdefault(name, []).append(row)
    entries: list[dict[str, object]] = []
    for name, rows in scored.items():
        present = {metric for row in rows for metric in row["metrics"]}
        columns = {key: label for key, label in COLUMNS.items() if key in present}
        best = {key: _best(rows, key, label.endswith("↑")) for key, label in columns.items()}
        entries.append({"name": name, "rows": rows, **_header(heads[name]), "columns": columns, "best": best})
    return entries


def _header(result: BenchmarkScores) -> dict[str, object]:
    names = ("source", "protocol", "protocol_hash", "describes", "frames", "expected", "data")
    return {name: getattr(result, name) for name in names}


def _best(rows: list[_Scored], metric: str, highest: bool) -> float | None:
    values = [value for row in rows if (value := row["metrics"].get(metric)) is not None]
    return (max(values) if highest else min(values)) if values else None


def _changes(gathered: Gathered, reference: ScoreFile | None, params: Params) -> dict[str, object] | None:
    """Paired comparison of the champion's successor with the champion."""
    if reference is None:
        return None
    name = reference.model
    if name not in gathered.scores:
        return None
    rows, notes = compare(
        gathered.scores[name],
        reference.model_copy(update={"model": "champion"}),
        samples=params.evaluate.bootstrap,
        seed=params.seed,
    )
    same = reference.weights_sha256 == gathered.scores[name].weights_sha256
    return {"model": name, "rows": rows, "notes": notes, "same": same, "verdict": _sentence(rows)}


def _sentence(rows: list[Comparison]) -> str:
    better, worse = (sum(row.better == sign for row in rows) for sign in (1, -1))
    return f"{better} of {len(rows)} scores are better, {worse} worse, {len(rows) - better - worse} not told apart."


def _licences(gathered: Gathered) -> dict[str, dict[str, object]]:
    from dav2.licences.lines import verdict

    return {run: {"lines": lines, "verdict": verdict(lines)} for run, lines in gathered.licences.items()}


def _curves(training: Training) -> dict[str, object]:
    """Small charts of one run: loss, and what was evaluated along the way."""
    points = [(line.step, line.loss) for line in training.metrics if line.loss is not None]
    drawn = [charts.curve(points, "Training", x_label="step", y_label="loss", smooth=max(1, len(points) // 15))]
    for key, title, percent in (("val_loss", "Held-out scenes", False), ("da2k", "DA-2K", True)):
        series = [(line.step, value) for line in training.evaluations if (value := getattr(line, key)) is not None]
        if series:
            label = "accuracy" if percent else "loss"
            drawn.append(charts.curve(series, title, x_label="step", y_label=label, markers=True, percent=percent))
    return {"run": training.run, "charts": drawn}


def _variants(gathered: Gathered, key: str) -> dict[str, object] | None:
    """Accuracy per model under image variants or input sizes, the plain score first."""
    plain = {"robustness": "clean", "resolution": "1"}[key]
    rows: dict[str, dict[str, float | None]] = {}
    for model, scores in gathered.scores.items():
        results = {"robustness": scores.robustness, "resolution": scores.resolution}[key]
        if results and (whole := gathered.da2k(model)):
            rows[model] = {plain: whole.accuracy, **{name: each.accuracy for name, each in results.items()}}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    if key == "resolution":
        columns.sort(key=float)
    return {"columns": columns, "rows": rows} if rows else None


def _lineage(gathered: Gathered) -> Markup | None:
    """Graph from raw data to every model."""
    traced = [lineage for lineage in gathered.lineages if "unknown" not in lineage]
    if not traced:
        return None
    nodes: dict[str, charts.Node] = {}
    columns = {"teacher": 1, "marigold": 2, "student": 3, "metric": 4}
    for lineage in traced:
        kind = lineage["kind"]
        begun = [parent["run"] for parent in lineage["parents"] if parent["role"] != TEACHER]
        begun += [_outside_node(nodes, each) for each in lineage["outside"] if each["role"] != TEACHER]
        if kind == "student":
            parents = [_labels_node(nodes, lineage), *begun]
        else:
            parents = begun + [_data_node(nodes, source, hashes) for source, hashes in lineage["data"].items()]
        detail = f"weights {_short(lineage['weights_sha256'])}"
        nodes[lineage["run"]] = charts.Node(lineage["run"], columns[kind], detail, tuple(parents))
    return charts.graph(list(nodes.values()), "Which data and models made which model")


def _data_node(nodes: dict[str, charts.Node], source: str, hashes: dict[str, str]) -> str:
    digest = hashes.get("manifest") or hashes.get("raw") or ""
    nodes.setdefault(source, charts.Node(source, 0, f"data {_short(digest)}"))
    return source


def _outside_node(nodes: dict[str, charts.Node], origin: dict[str, str]) -> str:
    name = origin["name"]
    nodes.setdefault(name, charts.Node(name, 0, f"made elsewhere {_short(origin['weights_sha256'])}"))
    return name


def _labels_node(nodes: dict[str, charts.Node], lineage: dict[str, Any]) -> str:
    sources = ", ".join(lineage["labels"])
    photographs = [_data_node(nodes, source, hashes) for source, hashes in lineage["data"].items()]
    digest = next((each["manifest"] for each in lineage["labels"].values()), "")
    made = [parent["run"] for parent in lineage["parents"] if parent["role"] == TEACHER]
    made += [_outside_node(nodes, each) for each in lineage["outside"] if each["role"] == TEACHER]
    parents = (*made, *photographs)
    nodes.setdefault("pseudo-labels", charts.Node("pseudo-labels", 2, sources or f"labels {_short(digest)}", parents))
    return "pseudo-labels"


def _problems(gathered: Gathered) -> list[str]:
    """Sentences about everything that was not scored, so that no gap is silent."""
    sentences = []
    for model, scores in gathered.scores.items():
        for reason, count in scores.da2k.problems.items() if scores.da2k is not None else ():
            sentences.append(f"{model}, DA-2K: {count} × {reason}")
        for name, result in scores.benchmarks.items():
            sentences += [f"{model}, {name}: {len(keys)} × {reason}" for reason, keys in result.problems.items()]
        sentences += [f"{model}: {doubt}" for doubt in scores.doubts]
        if scores.maps is not None:
            unreadable = scores.maps.unreadable.items()
            sentences += [f"{model}: {file} cannot be read: {reason}" for file, reason in unreadable]
        if scores.maps is not None and scores.maps.surplus:
            sentences.append(f"{model}: {len(scores.maps.surplus)} files are the map of no image")
    return sentences


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _short(digest: str) -> str:
    return digest.removeprefix("md5:")[:8]
