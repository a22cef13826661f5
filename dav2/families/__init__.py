"""Model families: what the house may ask of each, and the families themselves.

A family of one's own is a subclass of :class:`dav2.families.family.Family` in an installed package that names it under
the entry point group ``dav2.families``; :func:`add` does the same for one process.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dav2.families.family import Family

GROUP = "dav2.families"
DEFAULT = "depth_anything"
"""The family of a model directory that names none."""
_OWN = {
    DEFAULT: "dav2.families.depth_anything.family:DepthAnythingFamily",
    "maps": "dav2.families.maps.family:MapsFamily",
    "marigold": "dav2.families.marigold.family:MarigoldFamily",
    "onnx": "dav2.families.onnx.family:OnnxFamily",
}
_ADDED: dict[str, Family] = {}


class UnknownFamily(ValueError):
    """No family of that name is installed; the message lists those that are."""


def add(family: Family) -> None:
    """Make a family known to this process."""
    _ADDED[family.name] = family


def names() -> list[str]:
    """Families that can be named, without importing them."""
    return sorted({*_OWN, *_ADDED, *(point.name for point in entry_points(group=GROUP))})


def get(name: str) -> Family:
    """The family called ``name``, imported now.

    Raises:
        UnknownFamily: there is none.
    """
    return _ADDED[name] if name in _ADDED else _installed(name)


@cache
def _installed(name: str) -> Family:
    if name in _OWN:
        kind = EntryPoint(name, _OWN[name], GROUP).load()
    else:
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            raise UnknownFamily(f"no model family '{name}'; there are: {', '.join(names())}")
        kind = found[0].load()
    family: Family = kind()
    return family


def of_model(model: object) -> Family:
    """The family that a loaded model belongs to: the one its class names."""
    return get(getattr(model, "family", DEFAULT))
