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

    from dav2.families.depth_anything.export import ExportError, export_onnx, export_torch
    from dav2.families.depth_anything.foreign import save_encoder, save_hugging_face, save_official
    from dav2.families.loading import load

    path = out or Path(Path(model).name + KINDS[to])
    try:
        net = load(model, "cpu", torch.float32, max_depth=max_depth)
        note = ""
        if to == "official":
            save_official(net, path)
        elif to == "hugging-face":
            save_hugging_face(net, path)
        elif to == "encoder":
            save_encoder(net, path)
        else:
            if to == "torch":
                difference = export_torch(net, path)
            else:
                difference = export_onnx(net, path, torch.float16 if to == "onnx-fp16" else torch.float32)
            note = f", within {difference:.1e} of the source at three shapes"
    except (ValueError, ExportError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{path}{note}")
