"""The options of ``dav2 predict``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Reduction(StrEnum):
    """How the members of an ensemble are merged."""

    MEDIAN = "median"
    MEAN = "mean"
    CLOSEST = "closest"


Inputs = Annotated[
    list[str], typer.Argument(help="Images, videos, folders, globs, .txt lists of those, s3:// and https:// URLs.")
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="Model directory, .pth file, Hugging Face folder, models:/name@alias, or a size."
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
Size = Annotated[
    int | None,
    typer.Option(
        help="Short side the network sees, a multiple of 14 (with a DINOv3 encoder of 16); of a diffusion model "
        "the longest. Larger is sharper."
    ),
]
Save = Annotated[str, typer.Option(help="png16,npy,color,side-by-side,ply,uncertainty: one or several.")]
ColourMap = Annotated[str, typer.Option(help="A matplotlib colour map.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is if left out.")]
Dtype = Annotated[str | None, typer.Option(help="auto (bf16 where it is fast), fp32, bf16 or fp16.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model first; pays for many images.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Images per pass; 1 on a CPU, 8 on a GPU.")]
Focal = Annotated[float | None, typer.Option(help="Focal length in pixels, for point clouds.")]
Steps = Annotated[int | None, typer.Option(min=1, max=50, help="Of a diffusion model: steps, 1 to 50.")]
Ensemble = Annotated[
    int | None, typer.Option(min=1, max=100, help="Of a diffusion model: predictions that are merged.")
]
Merging = Annotated[
    Reduction | None,
    typer.Option(help="Of an ensemble: how it is merged; closest is for normals, and all else is median if not said."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of a diffusion model: of the noise it begins from.")]
Sparse = Annotated[
    Path | None,
    typer.Option(
        help="Depth known at some pixels: 16-bit PNG in millimetres or NPY in metres, 0 = unknown; a folder for "
        "several photographs. Metres come out."
    ),
]
MetricFrom = Annotated[
    str | None, typer.Option(help="A metric model whose scale and shift a relative one takes. Metres come out.")
]
NormalsFrom = Annotated[
    str | None, typer.Option(help="A model of normals that says which way the points of --save ply face.")
]
Tile = Annotated[
    int | None,
    typer.Option(help="Side in pixels of overlapping tiles that large images are seen in, each at --size."),
]
TileOverlap = Annotated[float, typer.Option(help="Share of a tile that the next one covers too, 0 to 0.9.")]
MaxDepth = Annotated[float | None, typer.Option(help="Range in metres, for .pth files that do not say it.")]
