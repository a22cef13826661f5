"""``dav2 predict``: depth of images, folders, globs, lists and videos."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dav2.cli import predict_options as given

if TYPE_CHECKING:
    from rich.console import Console

    from dav2.predict.inputs import Failure
    from dav2.predict.metric import Measure
    from dav2.predict.options import Options
    from dav2.predict.places import Found
    from dav2.predict.run import Outcome


def predict(
    inputs: given.Inputs,
    model: given.ModelName,
    out: given.Out = Path("predictions"),
    size: given.Size = None,
    save: given.Save = "png16,color",
    colormap: given.ColourMap = "Spectral_r",
    device: given.Device = None,
    dtype: given.Dtype = None,
    compile_: given.Compile = False,
    batch: given.Batch = None,
    focal: given.Focal = None,
    steps: given.Steps = None,
    ensemble: given.Ensemble = None,
    reduction: given.Merging = None,
    seed: given.Seed = None,
    sparse: given.Sparse = None,
    metric_from: given.MetricFrom = None,
    normals_from: given.NormalsFrom = None,
    tile: given.Tile = None,
    tile_overlap: given.TileOverlap = 0.5,
    max_depth: given.MaxDepth = None,
) -> None:
    """Predict depth; exit code 1 if any input could not be predicted."""
    from rich.console import Console

    from dav2.families.loading import load
    from dav2.files import output_folder
    from dav2.predict.facing import FromNormals
    from dav2.predict.metric import FromModel, FromPoints
    from dav2.predict.options import Options
    from dav2.predict.places import expand
    from dav2.predict.tiles import Tiling

    console = Console(stderr=True)
    # Before the model, which takes longer to load than a mistake to make.
    kinds = [kind.strip() for kind in save.split(",")]
    options = Options(out, kinds, size, 1, colormap, focal, None if tile is None else Tiling(tile, tile_overlap))
    if sparse is not None and metric_from is not None:
        raise ValueError("metres come from --sparse or from --metric-from, not from both")
    measure: Measure | None = None if sparse is None else FromPoints(sparse)
    found = expand(inputs)
    if not found.inputs:
        _told(console, found, [], [], out)
    with output_folder(out):  # Can be made, or the error says why not.
        pass
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net = load(model, device, dtype, max_depth=max_depth)
        if metric_from is not None:
            measure = FromModel(load(metric_from, device, dtype, max_depth=max_depth))
        facing = None if normals_from is None else FromNormals(load(normals_from, device, dtype))
    _set(net, size, steps, ensemble, seed, reduction)
    where = next(net.parameters())
    _says(console, f"{net.config.size} on {where.device} in {str(where.dtype).removeprefix('torch.')}", said)
    if compile_:
        net.compile(dynamic=True)
    options = replace(options, measure=measure, facing=facing, batch=batch or (1 if where.device.type == "cpu" else 8))
    outcome = _run(console, net, found, options)
    _told(console, found, outcome.failures, outcome.remarks, out)


def _says(console: Console, loaded: str, said: list[warnings.WarningMessage]) -> None:
    """Say what was loaded, and the warnings of loading."""
    console.print(loaded, highlight=False)
    for warning in said:
        console.print(f"warning: {warning.message}", markup=False, highlight=False, soft_wrap=True)


def _set(
    net: object,
    size: int | None,
    steps: int | None,
    ensemble: int | None,
    seed: int | None,
    merging: given.Reduction | None,
) -> None:
    """Have the model's family check the size and take what is drawn at random."""
    from dav2 import families

    family = families.of_model(net)
    if size is not None:
        family.check_input_size(net, size)
    if (steps, ensemble, seed, merging) != (None, None, None, None):
        family.set_sampling(net, steps, ensemble, seed, None if merging is None else merging.value)


def _run(console: Console, net: Any, found: Found, options: Options) -> Outcome:
    """Predict with a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from dav2.predict.run import predict as run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console) as bar:
        task = bar.add_task("predict", total=len(found.inputs), rate="")

        def done(_: object) -> None:
            bar.advance(task)
            elapsed = bar.tasks[0].elapsed
            bar.update(task, rate=f"{bar.tasks[0].completed / elapsed:.2f} files/s" if elapsed else "")

        return run(net, found.inputs, options, done)


def _told(console: Console, found: Found, bad: list[Failure], remarks: list[Failure], out: Path) -> None:
    """Say what became of every file; exit code 1 if any could not be predicted."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    good = len(found.inputs) - len(bad)
    say(f"{good} of {len(found.inputs)} files predicted{f', in {out}' if good else ''}")
    for remark in remarks:
        say(f"note: {remark}")
    for failure in [*found.failures, *bad]:
        say(f"failed: {failure}")
    say(found.told(len(bad)))
    if found.failures or bad:
        raise typer.Exit(1)
