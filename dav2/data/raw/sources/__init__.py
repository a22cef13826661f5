"""Readers of the public data sets, each in the layout in which it is published.

``open_source("hypersim", "data/hypersim", "hypersim", {})`` gives an object with ``index()`` and ``read(item)``. What
a data set consists of is known to one small file here; its cleaning rules are in ``rules/``. Modules are imported
when a reader is opened, since some need libraries that are slow to load.

A reader of one's own is a subclass of :class:`dav2.data.raw.sources.base.Reader` in an installed package that names it
under the entry point group ``dav2.readers``; :mod:`dav2.data.raw.testing` holds it to what all readers keep.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.item import Item, Source

if TYPE_CHECKING:
    from dav2.data.raw.sources.base import Reader
    from dav2.data.raw.sources.item import Options

__all__ = ["READERS", "Item", "Source", "SourceError", "open_source", "reader_class", "reader_names"]

GROUP = "dav2.readers"

READERS: dict[str, str] = {
    "hypersim": "hypersim:Hypersim",
    "vkitti2": "vkitti2:VirtualKitti2",
    "tartanair": "tartanair:TartanAir",
    "tartanair_v2": "tartanair_v2:TartanAirV2",
    "irs": "irs:IRS",
    "blendedmvs": "blendedmvs:BlendedMVS",
    "interiorverse": "interiorverse:InteriorVerse",
    "bdd100k": "bdd100k:BDD100K",
    "landmarks": "landmarks:Landmarks",
    "imagenet21k": "imagenet21k:ImageNet21K",
    "lsun": "lsun:LSUN",
    "objects365": "objects365:Objects365",
    "openimages": "openimages:OpenImages",
    "places365": "places365:Places365",
    "sa1b": "sa1b:SA1B",
    "image_folder": "image_folder:ImageFolder",
    "pairs": "pairs:Pairs",
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
    "normals": "normals:Normals",
}
"""Reader name → ``module:class`` in this package."""


def reader_names() -> list[str]:
    """Readers that can be named: dav2's own, then those of installed packages."""
    return [*READERS, *sorted({point.name for point in entry_points(group=GROUP)} - set(READERS))]


def reader_module(reader: str) -> str:
    """Module in which the reader called ``reader`` stands."""
    return _entry(reader).module


def reader_class(reader: str) -> type[Reader[Options]]:
    """The class called ``reader``, imported now.

    Raises:
        SourceError: there is none; the message lists those there are.
    """
    kind: type[Reader[Options]] = _entry(reader).load()
    return kind


def _entry(reader: str) -> EntryPoint:
    if reader in READERS:
        return EntryPoint(reader, f"{__name__}.{READERS[reader]}", GROUP)
    found = list(entry_points(group=GROUP, name=reader))
    if not found:
        raise SourceError(f"no reader named '{reader}'; there are: {', '.join(reader_names())}")
    return found[0]


def open_source(reader: str, path: str | Path, name: str, options: dict[str, object] | None = None) -> Source:
    """Open a data set.

    Args:
        reader: one of :func:`reader_names`.
        path: folder, archive or ``s3://`` URL in the layout in which the data set is published.
        name: first part of every key.
        options: what the reader offers; see its ``options_type``.

    Raises:
        SourceError: no such reader, no data at ``path``, or an option that the reader does not know.
    """
    kind = reader_class(reader)
    if not str(path):
        raise SourceError("the path of the data set is empty; '.' is the folder one is in")
    opened: Any = kind(str(path), name, options or {})
    source: Source = opened
    return source
