"""``dav2 export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from dav2.cli.progress import step
from dav2.extras import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = {
    "onnx": "_fp32.onnx",
    "onnx-fp16": "_fp16.onnx",
    "onnx-int8": "_int8.onnx",
    "torch": ".pt2",
    "official": ".pth",
    "hugging-face": "-hf",
    "encoder": "_encoder.safetensors",
    "diffusers": "-diffusers",
}
"""Kind → end of the default output name."""
FOLDERS = ("hugging-face", "diffusers")
"""Kinds that are folders."""


def export(
    model: Annotated[str, typer.Argument(help="Whatever 'dav2 predict --model' takes.")],
    to: Annotated[str, typer.Option(help=f"One of: {', '.join(KINDS)}.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File (a folder for hugging-face and diffusers).")
    ] = None,
    photographs: Annotated[
        list[str] | None, typer.Option(help="Files or folders to measure ranges on, for onnx-int8; 64 are taken.")
    ] = None,
    max_depth: Annotated[float | None, typer.Option(help="Range in metres, for .pth files that do not say it.")] = None,
) -> None:
    """Write a model as ONNX, torch.export, the published .pth, a Hugging Face folder, its encoder alone,
    or a folder of diffusers' Marigold."""
    if to not in KINDS:
        typer.echo(f"cannot export to '{to}'; there are: {', '.join(KINDS)}", err=True)
        raise typer.Exit(2)
    if to.startswith("onnx"):
        require("onnxscript", "onnx")

    import torch

    from dav2 import families
    from dav2.families.loading import load

    path = out or Path(Path(model).name + KINDS[to])
    _can_be_written(path, to)
    with step(f"loading {model}"):
        net = load(model, "cpu", torch.float32, max_depth=max_depth)
    family = families.of_model(net)
    if to not in (*family.exports, *family.calibrated):
        offered = ", ".join([*family.exports, *family.calibrated]) or "nothing"
        raise ValueError(f"{model} is of the family {net.family}, which can be exported as: {offered}")
    seen = _read(photographs or []) if to in family.calibrated else []
    with step(f"writing {path}"):
        note = family.calibrated[to](net, path, seen) if to in family.calibrated else family.exports[to](net, path)
    typer.echo(f"{path}, {note}" if note else str(path))


def _can_be_written(path: Path, to: str) -> None:
    """Before the minutes that some kinds take.

    Raises:
        ValueError: a folder is where the file is to be, or the other way round.
        OSError: the folder for it cannot be made.
    """
    from dav2.files import output_folder

    folder = to in FOLDERS
    if path.exists() and path.is_dir() != folder:
        there, wanted = ("a file", "a folder") if folder else ("a folder", "a file")
        raise ValueError(f"{path} is {there}, and --to {to} writes {wanted}; name another with --out")
    with output_folder(path.parent):
        pass


MOST = 64
"""Photographs that ranges are measured on."""


def _read(places: list[str]) -> list[NDArray[np.uint8]]:
    """Photographs at ``places``, spread over all there are; one that cannot be read is named and left out."""
    from dav2.data.images import decode
    from dav2.failures import reason
    from dav2.files import read_bounded
    from dav2.predict.places import expand
    from dav2.predict.run import MAX_BYTES

    if not places:
        raise typer.BadParameter("this kind measures ranges on photographs; name files or folders with --photographs")
    found = expand(places)
    for failure in found.failures:
        typer.echo(str(failure), err=True)
    inputs = [each for each in found.inputs if not each.video]
    read = []
    for each in inputs[:: max(1, len(inputs) // MOST)][:MOST]:
        try:
            with each.open() as file:
                read.append(decode(read_bounded(cast(BinaryIO, file), MAX_BYTES, each.path), each.path).rgb)
        except Exception as error:
            # Whatever one file raises is that file's failure.
            typer.echo(f"{each.path}: {reason(error)}", err=True)
    return read
