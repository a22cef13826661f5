"""``dav2 evaluate``, ``dav2 compare``, ``dav2 report``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dav2 import layout

if TYPE_CHECKING:
    from rich.table import Table

    from dav2.documents import ScoreFile
    from dav2.report.protocols import Moved

Root = Annotated[Path, typer.Option(help="Project folder.", file_okay=False, exists=True)]
Settings = Annotated[Path, typer.Option("--params", help="Settings file.")]


Shown = Callable[[int, int], None]


Named = Annotated[
    list[str] | None,
    typer.Argument(help="Runs, model directories, weights files, or baseline-constant|row|brightness."),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option(help="da2k or a name of evaluate.benchmarks; repeat for more. All that fit if left out."),
]
Protocols = Annotated[
    list[str] | None,
    typer.Option(
        help="Judge by these too: all, ls-depth, ls-disparity, ls-root-disparity, ransac-log, median, none, or a "
        "declared protocol; repeat for more."
    ),
]
Maps = Annotated[
    Path | None, typer.Option(help="Folder of maps that any program made: PNG, TIFF, NPY, NPZ, EXR, PFM, HDF5.")
]
OfMaps = Annotated[
    str,
    typer.Option(
        help="Of the maps: disparity, depth, log_depth, metres, normals, albedo, shading, residual, roughness or "
        "metallicity."
    ),
]
GammaCoded = Annotated[
    bool, typer.Option("--gamma-coded", help="Maps of albedo, shading and the like are x^(1/2.2) of linear values.")
]
Name = Annotated[str, typer.Option(help="Of the maps, in every table; the folder's name if left out.")]
By = Annotated[str, typer.Option(help="Who made the maps.")]
Scale = Annotated[float, typer.Option(help="Factor of the maps' values: 0.001 for millimetres.")]
Dataset = Annotated[str | None, typer.Option(help="Which array of NPZ or HDF5 files with several is the map.")]
Missing = Annotated[
    float, typer.Option(help="Share of a benchmark's images that may lack a map, before it is refused.")
]
Images = Annotated[
    Path | None, typer.Option(help="Only write the benchmarks' images here, under the names maps should bear.")
]
Page = Annotated[Path | None, typer.Option(help="Page of the protocols; reports/protocols/<name>.html if left out.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.")]


def evaluate(
    models: Named = None,
    benchmark: Benchmarks = None,
    protocol: Protocols = None,
    predictions: Maps = None,
    quantity: OfMaps = "",
    name: Name = "",
    by: By = "",
    scale: Scale = 1.0,
    dataset: Dataset = None,
    gamma_coded: GammaCoded = False,
    allow_missing: Missing = 0.05,
    images: Images = None,
    page: Page = None,
    device: Device = None,
    batch: Annotated[int, typer.Option(min=1, help="Most images per forward pass.")] = 8,
    params: Settings = Path("params.yaml"),
    root: Root = Path(),
) -> None:
    """Score models, or maps of any program, and write artifacts/scores/<model>.json."""
    from dav2.evaluation.evaluate import evaluate_model
    from dav2.evaluation.referee import Predictions, evaluate_maps, write_images
    from dav2.params import load

    settings, protocols = load(params), protocol or []
    if images is not None:
        typer.echo(f"wrote {write_images(settings, root, images, benchmark)} images below {images}")
        return
    _one_thing(models, predictions, quantity, name, by)
    if predictions is not None:
        maps = Predictions(predictions, quantity, name, by, scale, allow_missing, dataset, gamma_coded)
        results = [
            _shown(
                str(predictions),
                partial(evaluate_maps, maps, settings, root, benchmarks=benchmark, protocols=protocols),
            )
        ]
    else:
        judge = partial(evaluate_model, benchmarks=benchmark, protocols=protocols, device=device, batch=batch)
        results = [_shown(each, partial(judge, each, settings, root)) for each in models or []]
    _tell(results, protocols, page, root)


def _one_thing(models: list[str] | None, predictions: Path | None, quantity: str, name: str, by: str) -> None:
    if bool(models) == (predictions is not None):
        raise typer.BadParameter("name models to score, or --predictions FOLDER, and not both")
    if models and (quantity or name or by):
        raise typer.BadParameter("--quantity, --name and --by are of --predictions; a model says it itself")


def _shown(what: str, work: Callable[[Shown], ScoreFile]) -> ScoreFile:
    """Do ``work`` and show how far it is."""
    from dav2.cli.progress import progress

    with progress(what, "images") as show:
        return work(show)


def _tell(results: list[ScoreFile], protocols: list[str], page: Path | None, root: Path) -> None:
    """Scores, what the maps lack, doubts, protocols."""
    from rich.console import Console
    from rich.table import Table

    from dav2.report.protocols import moved, write_protocols_page

    console, table = Console(), Table("model", "benchmark", "score", "protocol")
    for result in results:
        _add_rows(table, result)
    console.print(table)
    for result in results:
        for line in _remarks(result):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        tables = moved(result)
        for each in tables:
            console.print(_protocol_table(result.model, each))
            console.print(each.sentence, highlight=False)
        if protocols and tables:
            out = page or root / layout.REPORTS / "protocols" / f"{result.model}.html"
            console.print(f"wrote {write_protocols_page(result, out)}", markup=False, highlight=False, soft_wrap=True)


def _remarks(result: ScoreFile) -> list[str]:
    maps = result.maps
    if maps is None:
        return []
    lines = [f"{maps.found} maps, sha256 {maps.sha256[:16]}" + (f", by {result.by}" if result.by else "")]
    if maps.surplus:
        some = ", ".join(maps.surplus[:5])
        lines.append(f"{len(maps.surplus)} files are the map of no image: {some}{' …' if maps.surplus[5:] else ''}")
    lines += [f"cannot be read: {reason}" for reason in maps.unreadable.values()]
    return [*lines, *(f"DOUBT: {each}" for each in result.doubts)]


def _protocol_table(model: str, moved: Moved) -> Table:
    from rich.table import Table

    table = Table(
        "protocol", "AbsRel", "× own", "δ1", "frames", "hash",
        title=f"{model} on {moved.name}", title_justify="left", box=None, padding=(0, 2, 0, 0),
    )  # fmt: skip
    for row in moved.rows:
        cells = ["void" if value is None else f"{value:.3f}" for value in (row.abs_rel, row.times, row.delta1)]
        table.add_row(f"{row.protocol}{' (own)' if row.own else ''}", *cells, f"{row.scored}/{row.frames}", row.hash)
    return table


_SHOWN = {
    "abs_rel": "AbsRel", "delta1": "δ1", "mean": "mean°", "median": "median°", "below_11.25": "< 11.25°",
    "albedo_psnr": "PSNR albedo", "shading_psnr": "shading", "residual_psnr": "residual", "roughness_psnr": "roughness",
    "metallicity_psnr": "metallicity",
}  # fmt: skip
"""Metrics of a benchmark that stand on the console."""


def _add_rows(table: Table, result: ScoreFile) -> None:
    da2k = result.known_da2k
    if da2k is not None and da2k.accuracy is not None:
        ends = [f"{100 * end:.1f}" for end in (da2k.low, da2k.high) if end is not None]
        interval = f" ({'–'.join(ends)})" if ends else ""
        table.add_row(result.model, "da2k", f"{100 * da2k.accuracy:.1f} %{interval}", f"{da2k.pairs} pairs")
        for reason, count in da2k.problems.items():
            table.add_row("", "", f"{count} × {reason}", "")
    for name, entry in result.benchmarks.items():
        known = [(label, entry.metrics[key]) for key, label in _SHOWN.items() if key in entry.metrics]
        void = not known or any(value is None for _, value in known)
        score = "void" if void else ", ".join(f"{label} {value:.3f}" for label, value in known)
        table.add_row(result.model, name, score, f"{entry.protocol} {entry.protocol_hash}")
        for reason, keys in entry.problems.items():
            table.add_row("", "", f"{len(keys)} × {reason}: {', '.join(keys[:2])}{' …' if keys[2:] else ''}", "")


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Scored models, each RUN or RUN@REVISION (a commit, branch or experiment of DVC); the first is what "
            "the others are compared with."
        ),
    ],
    samples: Annotated[int, typer.Option(min=100, help="Resamples of the bootstrap.")] = 2000,
    root: Root = Path(),
) -> None:
    """Paired differences on the same images, with 95 % intervals."""
    from rich.console import Console
    from rich.table import Table

    from dav2.cli.revisions import score_file
    from dav2.evaluation.compare import compare as paired

    if len(models) < 2:
        typer.echo("compare needs at least two models", err=True)
        raise typer.Exit(2)
    try:
        scores = [score_file(model, root) for model in models]
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    notes: list[str] = []
    for other, model in zip(scores[1:], models[1:], strict=True):
        rows, found = paired(other, scores[0], samples=samples)
        notes += found
        table = Table(
            "benchmark", "metric", "score", "against", "change", "95 % interval", "p", "verdict",
            title=f"{model} against {models[0]}", title_justify="left", box=None, padding=(0, 1, 0, 0),
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


def report(
    champion: Annotated[Path | None, typer.Option(help="Score file of the model in use, to say what changed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; reports in the project if left out.")] = None,
    params: Settings = Path("params.yaml"),
    root: Root = Path(),
) -> None:
    """Write reports/index.html and what 'dvc metrics' and 'dvc plots' read."""
    from dav2.cli.progress import progress
    from dav2.documents import ScoreFile
    from dav2.params import ParamsError, load
    from dav2.report import write_report

    def in_use(model: str) -> ScoreFile | None:
        return ScoreFile.read(champion) if champion else None

    try:
        with progress("report", "parts") as show:
            page = write_report(load(params), root, out, champion=in_use, progress=show)
    except (ValueError, ParamsError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"wrote {page}")
