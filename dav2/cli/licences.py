"""``dav2 licences``: what a model was made from, under which licences, and what that allows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dav2 import layout
from dav2.cli.shown import folded

if TYPE_CHECKING:
    from dav2.documents import LicenceLine
    from dav2.params import Params

TABLE = 140
"""Columns that the table of licences asks for."""


def licences(
    model: Annotated[
        str, typer.Argument(help="A run of this project, a registered NAME[@alias|/version], or a folder or file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    params: Annotated[Path, typer.Option("--params", help="Settings file.")] = Path("params.yaml"),
    root: Annotated[Path, typer.Option(help="Project folder.", file_okay=False, exists=True)] = Path(),
) -> None:
    """Print every data set, teacher, encoder and start behind a model with its licence, and the judgement."""
    from dav2.licences import NO_ADVICE
    from dav2.licences.lines import commercial, verdict
    from dav2.params import load

    if not model:
        raise typer.BadParameter("the name of the model is empty")
    lines = _lines(model, root, load(params))
    if as_json:
        listed = [line.model_dump() for line in lines]
        typer.echo(json.dumps({"model": model, "commercial": commercial(lines), "note": NO_ADVICE, "lines": listed}))
        return
    _show(lines)
    for sentence in verdict(lines):
        typer.echo(folded(sentence, 2))


def _lines(model: str, root: Path, params: Params) -> list[LicenceLine]:
    from dav2.runs import all_runs
    from dav2.tracking import registry, store
    from dav2.tracking.licences import licences_of_run

    place = root / model
    run = model
    if place.exists() and place.resolve().parent == (root / layout.MODELS).resolve():
        run = place.resolve().name
    if run in all_runs(params):
        return licences_of_run(run, root, params, lambda uri: registry.licences_of(uri, root))
    if place.exists() and not model.startswith("models:/"):
        return [_of_folder(place)]
    with store.told(root):
        api = store.client(root)
        version = registry.resolve(api, model.removeprefix("models:/"))
        found = registry.evidence_of(api, version).licences
    if found is None:
        raise store.TrackingError(
            f"{version.name} version {version.version} was registered before licences were recorded; "
            "'dvc repro -f register' records them"
        )
    return found


def _of_folder(place: Path) -> LicenceLine:
    """A model made elsewhere, of which no more is known than what lies beside it."""
    from dav2.families.outside import stated_licence
    from dav2.licences.lines import line_of
    from dav2.tracking.lineage import read_origin

    if (place / layout.ORIGIN).is_file():
        return line_of("model", place.name, read_origin(place).licence, "model", [])
    return line_of("model", place.name, stated_licence(place), "model", [])


def _show(lines: Sequence[LicenceLine]) -> None:
    from rich.console import Console
    from rich.table import Table

    if sys.stdout.isatty() and Console().width < TABLE:
        _show_narrow(lines)
        return
    table = Table(
        "what", "name", "through", "licence", "commercial", "share-alike", "attribution", "says who", box=None
    )
    for line in lines:
        asked = (line.commercial, line.share_alike, line.attribution)
        table.add_row(line.kind, line.name, ", ".join(line.through) or "–", line.licence, *asked, line.declared)
    Console(width=max(TABLE, Console().width)).print(table)
    _say_why(lines)


def _show_narrow(lines: Sequence[LicenceLine]) -> None:
    """The same where a terminal has no room for a table: a paragraph for each thing."""
    for line in lines:
        through = f", through {', '.join(line.through)}" if line.through else ""
        typer.echo(folded(f"{line.kind} {line.name}: {line.licence} (says {line.declared}){through}", 4))
        asked = f"commercial {line.commercial}, share-alike {line.share_alike}, attribution {line.attribution}"
        typer.echo(f"    {asked}")
    _say_why(lines)


def _say_why(lines: Sequence[LicenceLine]) -> None:
    reasons = dict.fromkeys((line.licence, line.says, line.source) for line in lines)
    for licence, says, source in reasons:
        typer.echo(folded(f"  {licence}: {says}{f' [{source}]' if source else ''}", 4))
    typer.echo("")
