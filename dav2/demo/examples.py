"""Photographs to click: those that installed packages ship, so that none has to be fetched or kept here."""

from __future__ import annotations

from pathlib import Path

from dav2.data.frame import FrameError
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.packaged import PackagedFile

SHIPPED = {
    "coffee": PackagedFile(package="skimage", file="data/coffee.png"),
    "cat": PackagedFile(package="skimage", file="data/chelsea.png"),
    "rocket": PackagedFile(package="skimage", file="data/rocket.jpg"),
    "temple": PackagedFile(package="sklearn", file="datasets/images/china.jpg"),
    "flower": PackagedFile(package="sklearn", file="datasets/images/flower.jpg"),
    "portrait": PackagedFile(package="matplotlib", file="mpl-data/sample_data/grace_hopper.jpg"),
}
"""By name; the last comes with dav2 itself, the others with its extra ``train``."""


def write_examples(folder: Path) -> list[Path]:
    """Write those that are there into ``folder``; returns their paths, in the order of ``SHIPPED``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, packaged in SHIPPED.items():
        try:
            data = packaged.read()
        except (SourceError, FrameError):
            continue
        path = folder / f"{name}{Path(packaged.file).suffix}"
        path.write_bytes(data)
        written.append(path)
    return written
