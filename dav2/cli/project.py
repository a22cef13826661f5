"""Commands about the project as a whole: its servers, its scale, and what the last run came to."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from dav2 import layout
from dav2.cli.shown import in_project
from dav2.extras import require


def _servers(*arguments: str) -> None:
    in_project()
    require("prefect", "mlflow")
    # The servers belong to the orchestration layer, which the library does not import.
    raise typer.Exit(subprocess.run([sys.executable, "-m", "flows.servers", *arguments]).returncode)


def up(worker: Annotated[bool, typer.Option("--worker", help="Also serve the scheduled rebuild.")] = False) -> None:
    """Start the Prefect and MLflow pages and print where they are."""
    _servers("up", *(["--worker"] if worker else []))


def down() -> None:
    """Stop the servers that this project folder started."""
    _servers("down")


def status() -> None:
    """Say which servers run and where."""
    _servers("status")


def scale(
    name: Annotated[str, typer.Argument(help="A file of infra/scales, such as sample, student, workstation or paper.")],
) -> None:
    """Write params.yaml for another scale; the old one is kept as params.yaml.bak, or .bak2 and on if that is taken."""
    from dav2.files import write_whole
    from dav2.params import DEFAULT_PATH, ParamsError, scale_text

    try:
        text = scale_text(name)
    except ParamsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    old = DEFAULT_PATH.read_bytes() if DEFAULT_PATH.exists() else None
    if old == text.encode():
        typer.echo(f"params.yaml is at scale '{name}' already")
        return
    kept = "" if old is None else f"; the settings before are in {_kept(DEFAULT_PATH, old)}"
    write_whole(DEFAULT_PATH, text)
    typer.echo(f"params.yaml is now at scale '{name}'{kept}; 'dvc status' shows what that makes stale")


def _kept(path: Path, old: bytes) -> Path:
    """Where ``old`` lies beside ``path``. What was kept there before, and is not the same, stays under its name."""
    from dav2.files import write_whole

    for number in itertools.count(1):
        backup = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        if not backup.exists():
            write_whole(backup, old)
            return backup
        if backup.is_file() and backup.read_bytes() == old:
            return backup
    raise AssertionError("numbers do not end")


def summary() -> None:
    """Print the scores of the last run and where to look."""
    from rich.console import Console
    from rich.table import Table

    in_project()
    found = sorted(Path(layout.REPORTS, "metrics").glob("*.json"))
    if not found:
        typer.echo("no scores yet: run 'dvc repro' (or 'make repro' in a fresh clone)", err=True)
        raise typer.Exit(2)
    table = Table(title="DA-2K accuracy", caption="95 % intervals: bootstrap over images")
    for column in ("model", "accuracy %", "low %", "high %"):
        table.add_column(column, justify="left" if column == "model" else "right")
    scored = {path.stem: _da2k(path) for path in found}
    ordered = sorted((item for item in scored.items() if "accuracy" in item[1]), key=lambda item: -item[1]["accuracy"])
    for model, value in ordered:
        cells = [value.get(name) for name in ("accuracy", "low", "high")]
        table.add_row(model, *("–" if share is None else f"{100 * share:.1f}" for share in cells))
    console = Console()
    console.print(table)
    console.print("report   reports/index.html")
    console.print("scores   dvc metrics show, dvc plots show")
    console.print("runs     dav2 up   (the Prefect and MLflow pages)")
    console.print("models   dav2 models, dav2 promote NAME")


def _da2k(path: Path) -> dict[str, float]:
    """Accuracy on DA-2K and its interval, as the report wrote them; empty for a model that was not judged by it."""
    try:
        read = json.loads(path.read_text("utf-8")).get("da2k") or {}
        return {name: float(value) for name in ("accuracy", "low", "high") if (value := read.get(name)) is not None}
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{path} holds no scores; 'dvc repro -f report' writes it again") from None
