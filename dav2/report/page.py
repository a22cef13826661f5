"""The page itself: gathered facts → template values → one HTML file without outside requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from dav2 import layout
from dav2.evaluation.baselines import PREFIX
from dav2.evaluation.compare import Comparison, compare
from dav2.params import Params
from dav2.report import charts, pictures
from dav2.report.gather import Gathered, Training

PUBLISHED = Path(__file__).parent / "published.yaml"
COLUMNS = {
    "abs_rel": "AbsRel ↓",
    "delta1": "δ₁ ↑",
    "rmse": "RMSE ↓",
    "silog": "SILog ↓",
    "boundary_f1": "boundary F1 ↑",
    "dbe_accuracy": "edge distance ↓",
}
"""Benchmark metrics shown on the page, in order; the score files hold all of them."""


def render(gathered: Gathered, params: Params, root: Path, champion: dict[str, Any] | None) -> str:
    """The page as HTML; see :func:`dav2.report.write_report`."""
    environment = Environment(
        loader=PackageLoader("dav2.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number, "short": _short, "duration": _duration}
    main = gathered.main_model
    runs = [name for name in gathered.relative if layout.model(root, name).is_dir()]
    values = {
        "scale": params.scale,
        "main": main,
        "baseline_prefix": PREFIX,
        "verdict": _verdict(gathered, main),
        "models": gathered.scores,
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
        "trainings": gathered.trainings,
        "problems": _problems(gathered),
    }
    return environment.get_template("report.html").render(values)


def _verdict(gathered: Gathered, main: str | None) -> dict[str, Any] | None:
    best = gathered.best_baseline()
    result = gathered.da2k(main) if main else None
    if main is None or result is None:
        return None
    verdict = {"model": main, **{name: result[name] for name in ("accuracy", "low", "high", "pairs", "images")}}
    if best is not None:
        comparisons = compare(gathered.scores[main], gathered.scores[best])[0]
        if comparisons:
            verdict |= {"baseline": best, "ahead": comparisons[0].difference}
    return verdict


def _accuracy_chart(gathered: Gathered) -> Any:
    rows = [
        charts.Dot(model, result["accuracy"], result["low"], result["high"], model.startswith(PREFIX))
        for model in gathered.scores
        if (result := gathered.da2k(model))
    ]
    rows.sort(key=lambda row: (row.muted, -row.value))
    return charts.dots(rows, "DA-2K accuracy of every model with its 95 % interval") if rows else None


def _kinds(gathered: Gathered) -> dict[str, Any] | None:
    table = {
        model: {kind: values["accuracy"] for kind, values in result["kinds"].items()}
        for model in gathered.scores
        if (result := gathered.da2k(model))
    }
    shown = [model for model in gathered.relative if model in table][: len(charts.MARKS)]
    if not shown:
        return None
    pairs = {kind: int(values["pairs"]) for kind, values in gathered.scores[shown[0]]["da2k"]["kinds"].items()}
    return {
        "chart": charts.kinds(table, shown, gathered.best_baseline(), "DA-2K accuracy per scene kind"),
        "marks": list(zip(shown, charts.MARKS, strict=False)),
        "baseline": gathered.best_baseline(),
        "table": table,
        "pairs": pairs,
    }


def _benchmarks(gathered: Gathered) -> list[dict[str, Any]]:
    """One entry per benchmark: its protocol, the columns it has, and a row per model."""
    entries: dict[str, dict[str, Any]] = {}
    for model, scores in gathered.scores.items():
        for name, result in scores.get("benchmarks", {}).items():
            entry = entries.setdefault(name, {"name": name, "rows": [], **_header(result)})
            entry["rows"].append({"model": model, "metrics": result["metrics"], "scored": result["scored"]})
    for entry in entries.values():
        present = {metric for row in entry["rows"] for metric in row["metrics"]}
        entry["columns"] = {key: label for key, label in COLUMNS.items() if key in present}
        entry["best"] = {key: _best(entry["rows"], key, label.endswith("↑")) for key, label in entry["columns"].items()}
    return list(entries.values())


def _header(result: dict[str, Any]) -> dict[str, Any]:
    names = ("source", "protocol", "protocol_hash", "describes", "frames", "expected", "data")
    return {name: result[name] for name in names}


def _best(rows: list[dict[str, Any]], metric: str, highest: bool) -> float | None:
    values = [row["metrics"][metric] for row in rows if row["metrics"].get(metric) is not None]
    return (max(values) if highest else min(values)) if values else None


def _changes(gathered: Gathered, reference: dict[str, Any] | None, params: Params) -> dict[str, Any] | None:
    """Paired comparison of the champion's successor with the champion."""
    if reference is None:
        return None
    name = reference["model"]
    if name not in gathered.scores:
        return None
    rows, notes = compare(
        gathered.scores[name], {**reference, "model": "champion"}, samples=params.evaluate.bootstrap, seed=params.seed
    )
    same = reference.get("weights_sha256") == gathered.scores[name].get("weights_sha256")
    return {"model": name, "rows": rows, "notes": notes, "same": same, "verdict": _sentence(rows)}


def _sentence(rows: list[Comparison]) -> str:
    better, worse = (sum(row.better == sign for row in rows) for sign in (1, -1))
    return f"{better} of {len(rows)} scores are better, {worse} worse, {len(rows) - better - worse} not told apart."


def _curves(training: Training) -> dict[str, Any]:
    """Small charts of one run: loss, and what was evaluated along the way."""
    points = [(line.step, line.loss) for line in training.metrics if line.loss is not None]
    drawn = [charts.curve(points, "Training", x_label="step", y_label="loss", smooth=max(1, len(points) // 15))]
    for key, title, percent in (("val_loss", "Held-out scenes", False), ("da2k", "DA-2K", True)):
        series = [(line.step, value) for line in training.evaluations if (value := getattr(line, key)) is not None]
        if series:
            label = "accuracy" if percent else "loss"
            drawn.append(charts.curve(series, title, x_label="step", y_label=label, markers=True, percent=percent))
    return {"run": training.run, "charts": drawn}


def _variants(gathered: Gathered, key: str) -> dict[str, Any] | None:
    """Accuracy per model under image variants or input sizes, the plain score first."""
    plain = {"robustness": "clean", "resolution": "1"}[key]
    rows: dict[str, dict[str, float]] = {}
    for model, scores in gathered.scores.items():
        results = scores.get(key) or {}
        if results and gathered.da2k(model):
            rows[model] = {
                plain: scores["da2k"]["accuracy"],
                **{name: each["accuracy"] for name, each in results.items()},
            }
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    if key == "resolution":
        columns.sort(key=float)
    return {"columns": columns, "rows": rows} if rows else None


def _lineage(gathered: Gathered) -> Any:
    """Graph from raw data to every model."""
    traced = [lineage for lineage in gathered.lineages if "unknown" not in lineage]
    if not traced:
        return None
    nodes: dict[str, charts.Node] = {}
    columns = {"teacher": 1, "student": 3, "metric": 4}
    for lineage in traced:
        kind = lineage["kind"]
        parents = [parent["run"] for parent in lineage["parents"]]
        if kind == "student":
            parents = [_labels_node(nodes, lineage)]
        else:
            parents += [_data_node(nodes, source, hashes) for source, hashes in lineage["data"].items()]
        detail = f"weights {_short(lineage['weights_sha256'])}"
        nodes[lineage["run"]] = charts.Node(lineage["run"], columns[kind], detail, tuple(parents))
    return charts.graph(list(nodes.values()), "Which data and models made which model")


def _data_node(nodes: dict[str, charts.Node], source: str, hashes: dict[str, str]) -> str:
    digest = hashes.get("manifest") or hashes.get("raw") or ""
    nodes.setdefault(source, charts.Node(source, 0, f"data {_short(digest)}"))
    return source


def _labels_node(nodes: dict[str, charts.Node], lineage: dict[str, Any]) -> str:
    sources = ", ".join(lineage["labels"])
    photographs = [_data_node(nodes, source, hashes) for source, hashes in lineage["data"].items()]
    digest = next((each["manifest"] for each in lineage["labels"].values()), "")
    parents = (*(parent["run"] for parent in lineage["parents"]), *photographs)
    nodes.setdefault("pseudo-labels", charts.Node("pseudo-labels", 2, sources or f"labels {_short(digest)}", parents))
    return "pseudo-labels"


def _problems(gathered: Gathered) -> list[str]:
    """Sentences about everything that was not scored, so that no gap is silent."""
    sentences = []
    for model, scores in gathered.scores.items():
        for reason, count in (scores.get("da2k") or {}).get("problems", {}).items():
            sentences.append(f"{model}, DA-2K: {count} × {reason}")
        for name, result in scores.get("benchmarks", {}).items():
            sentences += [f"{model}, {name}: {len(keys)} × {reason}" for reason, keys in result["problems"].items()]
    return sentences


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _short(digest: str) -> str:
    return digest.removeprefix("md5:")[:8]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
