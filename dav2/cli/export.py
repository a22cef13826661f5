"""``dav2 export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KINDS = {
    "onnx": "_fp32.onnx",
    "onnx-fp16": "_fp16.onnx",
    "torch": ".pt2",
    "official": ".pth",
    "hugging-face": "-hf",
    "encoder": "_encoder.safetensors",
}
"""Kind → end of the default output name."""


def export(
    model: Annotated[str, typer.Argument(help="Whatever 'dav2 predict --model' takes.")],
    to: Annotated[str, typer.Option(help=f"One of: {', '.join(KINDS)}.")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File (a folder for hugging-face).")] = None,
    max_depth: Annotated[float | None, typer.Option(help="Range in metres, for .pth files that do not say it.")] = None,
) -> None:
    """Write a model as ONNX, torch.export, the published .pth, a Hugging Face folder, or its encoder alone."""
    if to not in KINDS:
        typer.echo(f"cannot export to '{to}'; there are: {', '.join(KINDS)}", err=True)
        raise typer.Exit(2)

    import torch

    from dav2 import families
    from dav2.families.loading import load

    path = out or Path(Path(model).name + KINDS[to])
    net = load(model, "cpu", torch.float32, max_depth=max_depth)
    exports = families.of_model(net).exports
    if to not in exports:
        offered = ", ".join(exports) or "nothing"
        raise ValueError(f"{model} is of the family {net.family}, which can be exported as: {offered}")
    note = exports[to](net, path)
    typer.echo(f"{path}, {note}" if note else str(path))
