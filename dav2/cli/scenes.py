"""``dav2 scenes``: make the sample data, or more of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dav2.cli.shown import Listed

app = typer.Typer(help="Procedural scenes in the layouts of public data sets.", no_args_is_help=True, cls=Listed)


@app.callback()
def scenes() -> None:
    """Procedural scenes in the layouts of public data sets."""


@app.command()
def render(
    out: Annotated[Path, typer.Option(help="Folder that receives one folder per data set.")] = Path("data"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    only: Annotated[
        str,
        typer.Option(
            help="Comma-separated sets, e.g. hypersim,da2k; those of the sample by default. hypersim_layers and "
            "interiorverse hold normals, appearance and light as well."
        ),
    ] = "",
    scale: Annotated[
        str, typer.Option(help="small (the sample), large (more of it) or tiny (a frame or two).")
    ] = "small",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render the sample data. What is already there is kept, so a stopped run goes on where it was."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from dav2.files import output_folder
    from dav2.scenes.make import make
    from dav2.scenes.sets.plan import SCALES

    if scale not in SCALES:
        raise typer.BadParameter(f"'{scale}' is not one of {', '.join(SCALES)}", param_hint="--scale")
    with output_folder(out):  # Can be made, or the error says why not, before a renderer is loaded.
        pass
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        tasks: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        names = [name.strip() for name in only.split(",") if name.strip()]
        try:
            make(out, seed, scale, names, workers, show)
        except (ValueError, RuntimeError) as error:
            bars.stop()
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
