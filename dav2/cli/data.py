"""``dav2 data``: data sets as they lie on disk, and the shards made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import yaml

from dav2 import layout
from dav2.failures import reason
from dav2.params import DEFAULT_PATH, IngestParams, Params, ParamsError, SourceParams
from dav2.params import load as load_params

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from dav2.quality.tables import GateGroup

data = typer.Typer(help="Data sets: list, check, ingest, look at, validate.", no_args_is_help=True)

ParamsPath = Annotated[Path, typer.Option("--params", help="Settings file.")]
Name = Annotated[str, typer.Argument(help="A data set of params.yaml.")]


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    return table


def _print(*parts: Any) -> None:
    from rich.console import Console

    for part in parts:
        Console().print(part, highlight=False, markup=False) if isinstance(part, str) else Console().print(part)


def _told(problems: list[str]) -> None:
    """Name what failed while the rest went on; exit code 1 if anything did."""
    for problem in problems:
        typer.echo(f"failed: {problem}", err=True)
    if problems:
        raise typer.Exit(1)


def _data_set(params: Params, name: str) -> SourceParams:
    if name not in params.data_sets:
        raise ParamsError(f"no data set named '{name}' in params.yaml; there are: {', '.join(params.data_sets)}")
    return params.data_sets[name]


@data.command("list")
def list_(params_path: ParamsPath = DEFAULT_PATH) -> None:
    """The data sets of params.yaml and whether they are ingested, then every data set that can be read."""
    from dav2.data.raw.sources import READERS
    from dav2.data.raw.sources.cleaning import load_rules
    from dav2.data.store.ingest import read_summary

    params = load_params(params_path)
    rows, problems = [], list[str]()
    for name, source in params.data_sets.items():
        there = "yes" if "://" in source.path or Path(source.path).exists() else "no"
        frames = "no"
        try:
            frames = f"{read_summary(params.shards(name)).frames} frames"
        except FileNotFoundError:
            pass
        except Exception as error:
            frames = "damaged"
            problems.append(f"{name}: {reason(error)}")
        rows.append([name, source.group, source.reader, source.path, there, frames])
    _print(_table(str(params_path), ["name", "group", "reader", "path", "there", "ingested"], rows))
    rules = {reader: load_rules(reader) for reader in READERS}
    known = [
        [reader, rule.title, rule.licence, "; ".join(f"{p.frames} {p.subset}" for p in rule.promised)]
        for reader, rule in rules.items()
    ]
    _print(_table("Readers", ["reader", "data set", "licence", "promised frames"], known))
    _told(problems)


@data.command()
def check(
    reader: Annotated[str, typer.Argument(help="A reader; 'dav2 data list' names them.")],
    path: Annotated[str, typer.Argument(help="Folder, archive or s3:// URL of the data set.")],
    sample: Annotated[int, typer.Option(min=0, help="Frames to open, evenly spread; 0 opens all.")] = 200,
    options: Annotated[str, typer.Option(help="The reader's options as YAML, such as '{views: 4}'.")] = "{}",
) -> None:
    """Say what is there, what is missing and what cannot be read, writing nothing; exit code 1 if anything is bad."""
    from dav2.data.raw.sources import open_source
    from dav2.data.store.ingest.check import look

    try:
        chosen = yaml.safe_load(options)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(f"--options is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(chosen, dict):
        raise ParamsError(f"--options must be a YAML mapping such as '{{views: 4}}', not {options!r}")
    source = open_source(reader, path, reader, chosen)
    found = look(source, sample or None, IngestParams())
    splits = ", ".join(f"{count} {split}" for split, count in sorted(found.splits.items()))
    _print(f"{path}: {found.frames} frames in {found.scenes} scenes ({splits}); licence {source.licence}")
    for note in found.notes:
        _print(f"  {note}")
    sizes = ", ".join(f"{w} × {h}: {count}" for (w, h), count in found.sizes.most_common(5))
    _print(f"opened {found.read}; sizes {sizes or 'none'}; {found.with_camera} with intrinsics")
    if found.depth:
        low, median, high, valid, sky = zip(*found.depth, strict=True)
        _print(f"depth {min(low):.4g} … {max(high):.4g}, median of medians {sorted(median)[len(median) // 2]:.4g}")
        _print(f"known {min(valid):.1%} … {max(valid):.1%} of a frame, sky {min(sky):.1%} … {max(sky):.1%}")
    for key, why in found.problems:
        typer.echo(f"cannot be used: {key}: {why}", err=True)
    good, rest = found.read - len(found.problems), found.frames - found.read
    _print(f"frames: {found.frames} found = {good} sound + {len(found.problems)} failed + {rest} not opened")
    if found.problems:
        typer.echo(f"{len(found.problems)} of {found.read} opened frames cannot be used", err=True)
        raise typer.Exit(1)


@data.command()
def ingest(
    name: Name,
    params_path: ParamsPath = DEFAULT_PATH,
    out: Annotated[str | None, typer.Option(help="Folder or s3:// prefix instead of the usual one.")] = None,
) -> None:
    """Turn a data set into shards and a manifest; an interrupted run is taken up where it stopped."""
    from rich.progress import Progress

    from dav2.data.store.ingest import ingest as run
    from dav2.data.store.ingest import ingest_into

    params = load_params(params_path)
    source = _data_set(params, name)
    forbidden = [] if name in params.benchmarks else [params.shards(b) for b in params.benchmarks]
    with Progress() as bar:
        task = bar.add_task(name)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        settings: dict[str, Any] = {"seed": params.seed, "progress": show, "forbidden": forbidden}
        if out is not None:
            summary = run(name, source, params.ingest, out, **settings)
        else:
            folder, store = Path(params.shards(name)), params.ingest.store
            summary = ingest_into(folder, store, name, source, params.ingest, **settings)
    for note in summary.notes:
        _print(f"  {note}")
    left_out = f"{summary.quarantined} quarantined, {summary.duplicates + summary.forbidden} duplicates"
    _print(f"{name}: {summary.frames} frames in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB; {left_out}")


@data.command()
def stats(
    name: Annotated[
        str | None, typer.Argument(help="A data set of params.yaml; all that are ingested by default.")
    ] = None,
    params_path: ParamsPath = DEFAULT_PATH,
) -> None:
    """What the manifests say: frames, sizes, depth, brightness, and why frames were left out."""
    params = load_params(params_path)
    names = [name] if name else [n for n in params.data_sets if Path(params.shards(n), "manifest.parquet").exists()]
    problems = []
    for chosen in names:
        _data_set(params, chosen)
        try:
            _print(*_looks(params.shards(chosen), chosen))
        except Exception as error:
            if name is not None:
                raise
            problems.append(f"{chosen}: {reason(error)}")
    _told(problems)


def _looks(directory: str, name: str) -> list[Any]:
    """What the manifest of one data set says, as a table and sentences."""
    from dav2.data.store.ingest import read_summary
    from dav2.data.store.manifest import read_manifest, read_quarantine

    frames, summary = read_manifest(directory), read_summary(directory)
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    title = f"{name}: {len(frames)} frames ({splits}), {frames['scene'].nunique()} scenes, {summary.licence}"
    refused = summary.duplicates + summary.forbidden
    return [
        _table(title, ["", "least", "5 %", "median", "95 %", "greatest"], _quantiles(frames)),
        f"of {summary.indexed} listed: {summary.quarantined} quarantined, {refused} duplicates",
        *(f"  {count} × {why}" for why, count in read_quarantine(directory)["reason"].value_counts().head(10).items()),
    ]


def _quantiles(frames: pd.DataFrame) -> list[list[Any]]:
    looks = ("depth_min", "depth_median", "depth_max", "valid", "sky", "brightness", "contrast", "sharpness")
    columns = [column for column in ("width", "height", *looks) if frames[column].notna().any()]
    return [[column, *map(float, frames[column].quantile([0, 0.05, 0.5, 0.95, 1]))] for column in columns]


@data.command()
def show(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="JPEG to write; <name>.jpg by default.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Frames on the sheet.")] = 12,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    seed: Annotated[int, typer.Option(help="Which frames.")] = 0,
    params_path: ParamsPath = DEFAULT_PATH,
) -> None:
    """Make a contact sheet: photographs beside their depth, near red and far blue."""
    from dav2.data.store.manifest import ManifestError, read_manifest
    from dav2.quality.contact_sheet import draw

    params = load_params(params_path)
    _data_set(params, name)
    frames = read_manifest(params.shards(name))
    if split is not None:
        frames = frames[frames["split"] == split]
    if frames.empty:
        raise ManifestError(f"{params.shards(name)} holds no frame of split '{split}'")
    chosen = frames.sample(min(count, len(frames)), random_state=seed).sort_values("key")
    target = out or Path(f"{name}.jpg")
    draw(chosen, Path(), params, target, limit=count)
    _print(f"{len(chosen)} frames of {name}: {target}")


@data.command()
def validate(
    group: Annotated[str, typer.Argument(help="synthetic, unlabelled, benchmark or pseudo.")],
    params_path: ParamsPath = DEFAULT_PATH,
) -> None:
    """Run the quality gate of one group and write its Data Docs; exit code 1 if the gate stays shut."""
    from dav2.quality import QualityError
    from dav2.quality import validate as run

    out = layout.quality(Path(), group)
    try:
        # An unknown name is refused by the gate itself, which lists the groups.
        result = run(cast("GateGroup", group), Path(), load_params(params_path), out)
    except QualityError as error:
        raise ParamsError(str(error)) from None
    for warning in result.warnings:
        _print(f"warning: {warning}")
    for failure in result.failures:
        typer.echo(f"failed: {failure}", err=True)
    verdict = "passed" if result.passed else "failed"
    _print(f"{group}: {verdict}; {result.counts}; pages in {out / 'docs' / 'index.html'}")
    if not result.passed:
        raise typer.Exit(1)


@data.command()
def drift(
    old: Annotated[Path, typer.Argument(help="Folder of the old version's shards (with manifest.parquet).")],
    new: Annotated[Path, typer.Argument(help="Folder of the new version's shards.")],
    plot: Annotated[Path | None, typer.Option(help="PNG of the distributions to write.")] = None,
) -> None:
    """Compare two versions of a data set: what came and went, and which columns changed their distribution."""
    from dav2.quality import drift as compare

    table = compare.drift(old, new)
    if plot is not None:
        compare.plot(old, new, plot)
    rows = [[column, *(f"{value:.4g}" for value in values)] for column, *values in table.itertuples(index=False)]
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in table.attrs.items())
    _print(counts, _table("Drift", list(table.columns), rows), *([f"distributions: {plot}"] if plot else []))
