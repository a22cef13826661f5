"""``dav2 data``: data sets as they lie on disk, and the shards made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from dav2 import layout
from dav2.cli import known
from dav2.cli.known import PARAMS, ParamsPath
from dav2.cli.progress import progress, step
from dav2.cli.shown import Listed, say, table, told
from dav2.failures import reason

if TYPE_CHECKING:
    import pandas as pd

    from dav2.params import Params, SourceParams
    from dav2.quality.tables import GateGroup

data = typer.Typer(help="Data sets: list, get, check, ingest, look at, validate.", no_args_is_help=True, cls=Listed)
data.command("list")(known.list_)
data.command()(known.how)

SHOWN = 10
"""Frames on the picture of a check."""

Name = Annotated[str, typer.Argument(help="A data set of params.yaml.")]


def _data_set(params: Params, name: str) -> SourceParams:
    from dav2.names import known as known_names
    from dav2.params import ParamsError

    if name not in params.data_sets:
        raise ParamsError(f"no data set named '{name}' in params.yaml; {known_names(name, params.data_sets)}")
    return params.data_sets[name]


@data.command()
def check(
    reader: Annotated[str, typer.Argument(help="A reader; 'dav2 data list' names them.")],
    path: Annotated[str, typer.Argument(help="Folder, archive or s3:// URL of the data set.")],
    sample: Annotated[int, typer.Option(min=0, help="Frames to open, evenly spread; 0 opens all.")] = 200,
    options: Annotated[str, typer.Option(help="The reader's options as YAML, such as '{views: 4}'.")] = "{}",
    show: Annotated[Path | None, typer.Option(help="JPEG to write of ten frames beside their depth.")] = None,
) -> None:
    """Say what is there, what is missing, what cannot be read and what looks wrong; exit code 1 if anything is bad."""
    from dav2.data.raw.sources import open_source
    from dav2.data.store.ingest.check import look
    from dav2.params import IngestParams
    from dav2.params.text import parse

    source = open_source(reader, path, reader, parse(options, "--options"))
    with progress(reader, "frames") as seen:
        found = look(source, sample or None, IngestParams(), 0 if show is None else SHOWN, seen)
    splits = ", ".join(f"{count} {split}" for split, count in sorted(found.splits.items()))
    say(f"{path}: {found.frames} frames in {found.scenes} scenes ({splits}); licence {source.licence}")
    for note in found.notes:
        say(f"  {note}")
    sizes = ", ".join(f"{w} × {h}: {count}" for (w, h), count in found.sizes.most_common(5))
    say(f"opened {found.read}; sizes {sizes or 'none'}; {found.with_camera} with intrinsics")
    if found.depth:
        low, median, high, valid, sky = zip(*found.depth, strict=True)
        say(f"depth {min(low):.4g} … {max(high):.4g}, median of medians {sorted(median)[len(median) // 2]:.4g}")
        say(f"known {min(valid):.1%} … {max(valid):.1%} of a frame, sky {min(sky):.1%} … {max(sky):.1%}")
    if found.layers:
        say(f"layers: {', '.join(f'{name} {count}' for name, count in found.layers.items())}")
    if show is not None:
        from dav2.quality.contact_sheet import draw_frames

        draw_frames(found.shown, show)
        say(f"{len(found.shown)} frames beside their depth, near red and far blue: {show}")
    for suspicion in found.suspicions:
        typer.echo(f"looks wrong: {suspicion}", err=True)
    for key, why in found.problems:
        typer.echo(f"cannot be used: {key}: {why}", err=True)
    good, rest = found.read - len(found.problems), found.frames - found.read
    say(f"frames: {found.frames} found = {good} sound + {len(found.problems)} failed + {rest} not opened")
    if found.problems:
        typer.echo(f"{len(found.problems)} of {found.read} opened frames cannot be used", err=True)
    if found.problems or found.suspicions:
        raise typer.Exit(1)


@data.command()
def ingest(
    name: Name,
    params_path: ParamsPath = PARAMS,
    out: Annotated[str | None, typer.Option(help="Folder or s3:// prefix instead of the usual one.")] = None,
) -> None:
    """Turn a data set into shards and a manifest; an interrupted run is taken up where it stopped."""
    from dav2.data.store.ingest import ingest as run
    from dav2.data.store.ingest import ingest_into
    from dav2.params import load

    params = load(params_path)
    source = _data_set(params, name)
    forbidden = [] if name in params.benchmarks else [params.shards(b) for b in params.benchmarks]
    with progress(name, "frames") as show:
        settings: dict[str, Any] = {"seed": params.seed, "progress": show, "forbidden": forbidden}
        if out is not None:
            summary = run(name, source, params.ingest, out, **settings)
        else:
            folder, store = Path(params.shards(name)), params.ingest.store
            summary = ingest_into(folder, store, name, source, params.ingest, **settings)
    for note in summary.notes:
        say(f"  {note}")
    left_out = f"{summary.quarantined} quarantined, {summary.duplicates + summary.forbidden} duplicates"
    say(f"{name}: {summary.frames} frames in {summary.shards} shards, {summary.bytes / 1e6:.1f} MB; {left_out}")


@data.command()
def stats(
    name: Annotated[
        str | None, typer.Argument(help="A data set of params.yaml; all that are ingested by default.")
    ] = None,
    params_path: ParamsPath = PARAMS,
) -> None:
    """What the manifests say: frames, sizes, depth, brightness, and why frames were left out."""
    from dav2.params import load

    params = load(params_path)
    names = [name] if name else [n for n in params.data_sets if Path(params.shards(n), "manifest.parquet").exists()]
    if not names:
        raise FileNotFoundError(
            f"no data set of {params_path} is ingested; run 'dav2 data ingest NAME', or 'dvc repro'"
        )
    problems = []
    for chosen in names:
        _data_set(params, chosen)
        try:
            say(*_looks(params.shards(chosen), chosen))
        except Exception as error:
            if name is not None:
                raise
            problems.append(f"{chosen}: {reason(error)}")
    told(problems)


def _looks(directory: str, name: str) -> list[object]:
    """What the manifest of one data set says, as a table and sentences."""
    from dav2.data.store.ingest import read_summary
    from dav2.data.store.manifest import read_manifest, read_quarantine
    from dav2.maps import LAYERS

    frames, summary = read_manifest(directory), read_summary(directory)
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    title = f"{name}: {len(frames)} frames ({splits}), {frames['scene'].nunique()} scenes, {summary.licence}"
    refused = summary.duplicates + summary.forbidden
    layers = {layer: count for layer in LAYERS if (count := int((frames[f"size_{layer}"] > 0).sum()))}
    return [
        table(title, ["", "least", "5 %", "median", "95 %", "greatest"], _quantiles(frames)),
        f"of {summary.indexed} listed: {summary.quarantined} quarantined, {refused} duplicates",
        *([f"layers: {', '.join(f'{layer} {count}' for layer, count in layers.items())}"] if layers else []),
        *(f"  {count} × {why}" for why, count in read_quarantine(directory)["reason"].value_counts().head(10).items()),
    ]


def _quantiles(frames: pd.DataFrame) -> list[list[object]]:
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
    params_path: ParamsPath = PARAMS,
) -> None:
    """Make a contact sheet: photographs beside their depth, near red and far blue."""
    from dav2.data.store.manifest import ManifestError, read_manifest
    from dav2.params import load
    from dav2.quality.contact_sheet import draw

    params = load(params_path)
    _data_set(params, name)
    frames = read_manifest(params.shards(name))
    if split is not None:
        frames = frames[frames["split"] == split]
    if frames.empty:
        raise ManifestError(f"{params.shards(name)} holds no frame of split '{split}'")
    chosen = frames.sample(min(count, len(frames)), random_state=seed).sort_values("key")
    target = out or Path(f"{name}.jpg")
    draw(chosen, Path(), params, target, limit=count)
    say(f"{len(chosen)} frames of {name}: {target}")


@data.command()
def validate(
    group: Annotated[str, typer.Argument(help="synthetic, real, unlabelled, benchmark or pseudo.")],
    params_path: ParamsPath = PARAMS,
) -> None:
    """Run the quality gate of one group and write its Data Docs; exit code 1 if the gate stays shut."""
    from dav2.params import ParamsError, load
    from dav2.quality import QualityError
    from dav2.quality import validate as run

    out = layout.quality(Path(), group)
    try:
        # An unknown name is refused by the gate itself, which lists the groups.
        with step(f"judging the data of group {group}"):
            result = run(cast("GateGroup", group), Path(), load(params_path), out)
    except QualityError as error:
        raise ParamsError(str(error)) from None
    for warning in result.warnings:
        say(f"warning: {warning}")
    for failure in result.failures:
        typer.echo(f"failed: {failure}", err=True)
    verdict = "passed" if result.passed else "failed"
    say(f"{group}: {verdict}; {result.counts}; pages in {out / 'docs' / 'index.html'}")
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

    found = compare.drift(old, new)
    if plot is not None:
        compare.plot(old, new, plot)
    rows = [[column, *(f"{value:.4g}" for value in values)] for column, *values in found.itertuples(index=False)]
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found.attrs.items())
    say(counts, table("Drift", list(found.columns), rows), *([f"distributions: {plot}"] if plot else []))
