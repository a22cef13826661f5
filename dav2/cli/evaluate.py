"""``dav2 evaluate``, ``dav2 compare``, ``dav2 report``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from dav2 import layout

Root = Annotated[Path, typer.Option(help="Project folder.", file_okay=False)]
Settings = Annotated[Path, typer.Option("--params", help="Settings file.")]


def evaluate(
    models: Annotated[
        list[str], typer.Argument(help="Runs, model directories, weights files, or baseline-constant|row|brightness.")
    ],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="da2k or a name of evaluate.benchmarks; repeat for more. All that fit if left out."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most images per forward pass.")] = 8,
    params: Settings = Path("params.yaml"),
    root: Root = Path(),
) -> None:
    """Score models and write artifacts/scores/<model>.json."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from dav2.evaluation.evaluate import EvaluationError, evaluate_model
    from dav2.params import ParamsError, load

    console = Console()
    table = Table("model", "benchmark", "score", "protocol")
    try:
        settings = load(params)
        for model in models:
            with Progress(console=console, transient=True) as bar:
                task = bar.add_task(model, total=None)
                result = evaluate_model(
                    model,
                    settings,
                    root,
                    lambda done, total: bar.update(task, completed=done, total=total),  # noqa: B023
                    benchmarks=benchmark,
                    device=device,
                    batch=batch,
                )
            _add_rows(table, result)
    except (EvaluationError, ParamsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    console.print(table)


def _add_rows(table: object, result: dict) -> None:
    from rich.table import Table

    assert isinstance(table, Table)
    da2k = result.get("da2k")
    if da2k:
        score = f"{100 * da2k['accuracy']:.1f} % ({100 * da2k['low']:.1f}–{100 * da2k['high']:.1f})"
        table.add_row(result["model"], "da2k", score, f"{da2k['pairs']} pairs")
    for name, entry in result["benchmarks"].items():
        values = entry["metrics"]
        void = values.get("abs_rel") is None
        score = "void" if void else f"AbsRel {values['abs_rel']:.3f}, δ1 {values['delta1']:.3f}"
        table.add_row(result["model"], name, score, f"{entry['protocol']} {entry['protocol_hash']}")
        for reason, keys in entry["problems"].items():
            table.add_row("", "", f"{len(keys)} × {reason}", "")


def compare(
    models: Annotated[list[str], typer.Argument(help="Scored models; the first is what the others are compared with.")],
    samples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 2000,
    root: Root = Path(),
) -> None:
    """Paired differences on the same images, with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    from dav2.evaluation.compare import compare as paired
    from dav2.evaluation.compare import read_scores

    if len(models) < 2:
        typer.echo("compare needs at least two models", err=True)
        raise typer.Exit(2)
    try:
        scores = [read_scores(_score_file(model, root)) for model in models]
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    notes: list[str] = []
    for other, model in zip(scores[1:], models[1:], strict=True):
        rows, found = paired(other, scores[0], samples=samples)
        notes += found
        table = Table(
            "benchmark", "metric", "score", "against", "change", "95 % interval", "p", "verdict",
            title=f"{model} against {models[0]}", title_justify="left", box=None, padding=(0, 2, 0, 0),
        )  # fmt: skip
        for row in rows:
            d = row.difference
            # One image has no interval.
            known = math.isfinite(d.low) and math.isfinite(d.high)
            table.add_row(
                row.benchmark, row.metric, f"{row.score:.3f}", f"{row.reference_score:.3f}", f"{d.value:+.3f}",
                f"{d.low:.3f}…{d.high:.3f}" if known else "–", f"{d.p:.3f}" if known else "–",
                {1: "better", 0: "open", -1: "worse"}[row.better],
            )  # fmt: skip
        Console().print(table)
    typer.echo("open: the interval holds zero, so these images do not tell the two apart")
    for note in notes:
        typer.echo(note)


def _score_file(model: str, root: Path) -> Path:
    return Path(model) if model.endswith(".json") else layout.scores(root, model)


def report(
    champion: Annotated[Path | None, typer.Option(help="Score file of the model in use, to say what changed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; reports in the project if left out.")] = None,
    params: Settings = Path("params.yaml"),
    root: Root = Path(),
) -> None:
    """Write reports/index.html and what 'dvc metrics' and 'dvc plots' read."""
    from dav2.evaluation.compare import read_scores
    from dav2.params import ParamsError, load
    from dav2.report import write_report

    try:
        page = write_report(load(params), root, out, champion=lambda _: read_scores(champion) if champion else None)
    except (ValueError, ParamsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"wrote {page}")
