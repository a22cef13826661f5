"""Readers of the public data sets, each in the layout in which it is published.

``open_source("hypersim", "data/hypersim", "hypersim", {})`` gives an object with ``index()`` and ``read(item)``. What
a data set consists of is known to one small file here; its cleaning rules are in ``rules/``. Modules are imported
when a reader is opened, since some need libraries that are slow to load.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.item import Item, Source

__all__ = ["READERS", "Item", "Source", "SourceError", "open_source"]

READERS: dict[str, str] = {
    "hypersim": "hypersim:Hypersim",
    "vkitti2": "vkitti2:VirtualKitti2",
    "tartanair": "tartanair:TartanAir",
    "tartanair_v2": "tartanair_v2:TartanAirV2",
    "irs": "irs:IRS",
    "blendedmvs": "blendedmvs:BlendedMVS",
    "bdd100k": "bdd100k:BDD100K",
    "landmarks": "landmarks:Landmarks",
    "imagenet21k": "imagenet21k:ImageNet21K",
    "lsun": "lsun:LSUN",
    "objects365": "objects365:Objects365",
    "openimages": "openimages:OpenImages",
    "places365": "places365:Places365",
    "sa1b": "sa1b:SA1B",
    "image_folder": "image_folder:ImageFolder",
    "photos": "photos:PackagedPhotographs",
    "da2k": "da2k:DA2K",
    "nyu": "nyu:NYUv2",
    "kitti": "kitti:Kitti",
    "eth3d": "eth3d:ETH3D",
    "diode": "diode:Diode",
    "sintel": "sintel:Sintel",
    "scannet": "scannet:ScanNet",
    "ibims": "ibims:IBims",
    "middlebury": "middlebury:Middlebury",
}
"""Reader name → ``module:class`` in this package."""


def reader_module(reader: str) -> str:
    """Module in which the reader called ``reader`` stands."""
    return f"{__name__}.{READERS[reader].partition(':')[0]}"


def open_source(reader: str, path: str | Path, name: str, options: dict[str, Any] | None = None) -> Source:
    """Open a data set.

    Args:
        reader: one of ``READERS``.
        path: folder, archive or ``s3://`` URL in the layout in which the data set is published.
        name: first part of every key.
        options: what the reader offers; see its ``options_type``.

    Raises:
        SourceError: no such reader, no data at ``path``, or an option that the reader does not know.
    """
    if reader not in READERS:
        raise SourceError(f"no reader named '{reader}'; there are: {', '.join(READERS)}")
    if not str(path):
        raise SourceError("the path of the data set is empty; '.' is the folder one is in")
    module, _, kind = READERS[reader].partition(":")
    opened: Source = getattr(importlib.import_module(f"{__name__}.{module}"), kind)(str(path), name, options or {})
    return opened
