"""``dav2 predict``: depth of images, folders, globs, lists and videos."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from dav2.predict.options import Options
    from dav2.predict.places import Found
    from dav2.predict.run import Outcome


def predict(
    inputs: Annotated[
        list[str], typer.Argument(help="Images, videos, folders, globs, .txt lists of those, s3:// and https:// URLs.")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Model directory, .pth file, Hugging Face folder, models:/name@alias, or a size."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("predictions"),
    size: Annotated[
        int | None,
        typer.Option(
            help="Short side the network sees, a multiple of 14 (with a DINOv3 encoder of 16); of a diffusion model "
            "the longest. Larger is sharper."
        ),
    ] = None,
    save: Annotated[
        str, typer.Option(help="png16,npy,color,side-by-side,ply,uncertainty: one or several.")
    ] = "png16,color",
    colormap: Annotated[str, typer.Option(help="A matplotlib colour map.")] = "Spectral_r",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto (bf16 where it is fast), fp32, bf16 or fp16.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the model first; pays for many images.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per pass; 1 on a CPU, 8 on a GPU.")] = None,
    focal: Annotated[float | None, typer.Option(help="Focal length in pixels, for point clouds.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=50, help="Of a diffusion model: steps, 1 to 50.")] = None,
    ensemble: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of a diffusion model: predictions that are merged.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of a diffusion model: of the noise it begins from.")] = None,
    max_depth: Annotated[float | None, typer.Option(help="Range in metres, for .pth files that do not say it.")] = None,
) -> None:
    """Predict depth; exit code 1 if any input could not be predicted."""
    from rich.console import Console

    from dav2.families.loading import load
    from dav2.predict.options import Options
    from dav2.predict.places import expand

    console = Console(stderr=True)
    # Before the model, which takes longer to load than a mistake to make.
    kinds = [kind.strip() for kind in save.split(",")]
    options = Options(out, kinds, size, 1, colormap, focal)
    found = expand(inputs)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net = load(model, device, dtype, max_depth=max_depth)
    _set(net, size, steps, ensemble, seed)
    where = next(net.parameters())
    console.print(f"{net.config.size} on {where.device} in {str(where.dtype).removeprefix('torch.')}", highlight=False)
    for warning in said:
        console.print(f"warning: {warning.message}", markup=False, highlight=False, soft_wrap=True)
    if compile_:
        net.compile(dynamic=True)
    options = replace(options, batch=batch or (1 if where.device.type == "cpu" else 8))
    outcome = _run(console, net, found, options)
    _told(console, found, outcome, out)


def _set(net: object, size: int | None, steps: int | None, ensemble: int | None, seed: int | None) -> None:
    """Have the model's family check the size and take what is drawn at random."""
    from dav2 import families

    family = families.of_model(net)
    if size is not None:
        family.check_input_size(net, size)
    if (steps, ensemble, seed) != (None, None, None):
        family.set_sampling(net, steps, ensemble, seed)


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


def _told(console: Console, found: Found, outcome: Outcome, out: Path) -> None:
    """Say what became of every file; exit code 1 if any could not be predicted."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    good = len(found.inputs) - len(outcome.failures)
    say(f"{good} of {len(found.inputs)} files predicted, in {out}")
    for remark in outcome.remarks:
        say(f"note: {remark}")
    for failure in [*found.failures, *outcome.failures]:
        say(f"failed: {failure}")
    say(found.told(len(outcome.failures)))
    if found.failures or outcome.failures:
        raise typer.Exit(1)
