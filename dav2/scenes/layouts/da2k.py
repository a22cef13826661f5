"""DA-2K: pictures by scene kind and ``annotations.json`` with (row, column) point pairs, the closer point named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.layouts import files

KINDS = (
    "indoor",
    "outdoor",
    "non_real",
    "transparent_reflective",
    "adverse_style",
    "aerial",
    "underwater",
    "object",
)


ANNOTATIONS = "DA-2K/annotations.json"


class Pair(NamedTuple):
    """Two points (row, column); ``point1`` is the closer one, as everywhere in the official file."""

    point1: tuple[int, int]
    point2: tuple[int, int]


def write_image(root: Path, kind: str, name: str, rgb: NDArray[np.uint8]) -> str:
    """Write ``DA-2K/images/<kind>/<name>.jpg`` and return its key in the annotations.

    Raises:
        ValueError: ``kind`` is not one of the eight.
    """
    if kind not in KINDS:
        raise ValueError(f"DA-2K has no scene kind '{kind}'; it has {', '.join(KINDS)}")
    key = f"images/{kind}/{name}.jpg"
    files.write_jpeg(root / "DA-2K" / key, rgb)
    return key


def write_annotations(root: Path, pairs: Mapping[str, Sequence[Pair]]) -> None:
    """Write ``DA-2K/annotations.json``: key of an image → its pairs."""
    content = {
        key: [{"point1": list(pair.point1), "point2": list(pair.point2), "closer_point": "point1"} for pair in listed]
        for key, listed in sorted(pairs.items())
    }
    files.write(root / ANNOTATIONS, json.dumps(content, indent=1).encode())
