"""MPI Sintel (Butler et al., ECCV 2012), training sequences: an animated film with the renderer's depth.

Layout: ``training/{final,clean}/<sequence>/frame_NNNN.png``, ``training/depth/<sequence>/frame_NNNN.dpt`` and, where
it is there, ``training/camdata_left/<sequence>/frame_NNNN.cam``. The depth of the sky is very large rather than
marked; where to cut is for the protocol to say.
"""

from __future__ import annotations

import re
import struct
from typing import Literal

import numpy as np

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import DPT_TAG, read_dpt
from dav2.data.raw.sources.item import Item, Options

_FILE = re.compile(
    r"(?:.*/)?training/(?P<kind>final|clean|depth|camdata_left)/(?P<scene>[^/]+)/(?P<frame>frame_\d+)\.(?:png|dpt|cam)"
)


class SintelOptions(Options):
    """Which rendering is taken."""

    rendering: Literal["final", "clean"] = "final"
    """``final`` has motion blur, defocus and fog; ``clean`` has none."""


class Sintel(Reader[SintelOptions]):
    """Frames of the animated film with the renderer's planar depth, in its own unit."""

    group = "benchmark"
    rules_name = "sintel"
    options_type = SintelOptions

    def items(self, names: list[str]) -> list[Item]:
        """Frames of the chosen rendering that have depth, with the camera where it is there."""
        there = {(m["kind"], m["scene"], m["frame"]): m[0] for name in names if (m := _FILE.fullmatch(name))}
        items = []
        for (kind, scene, frame), depth in there.items():
            image = there.get((self.options.rendering, scene, frame))
            if kind == "depth" and image:
                camera = there.get(("camdata_left", scene, frame))
                paths = (image, depth, *([camera] if camera else []))
                items.append(Item(make_key(self.name, scene, frame), scene, "test", paths))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share sequence and number."""
        match = _FILE.fullmatch(name)
        kind = {self.options.rendering: "image", "depth": "depth"}.get(match["kind"]) if match else None
        return ((match["scene"], match["frame"]), kind) if match and kind else None

    def load(self, item: Item) -> Frame:
        """Planar depth in metres, sky included as a large number."""
        image = self.image(item.paths[0])
        depth = read_dpt(self.tree.read(item.paths[1]), item.paths[1])
        camera = read_camera(self.tree.read(item.paths[2]), item.paths[2]) if len(item.paths) > 2 else None
        return self.labelled(item, image, depth, camera)


def read_camera(data: bytes, name: str) -> Intrinsics:
    """A ``.cam`` file: the tag of ``.dpt`` files, K as 9 float64, then the pose as 12; little endian."""
    if len(data) < 4 + 72 or struct.unpack("<f", data[:4])[0] != DPT_TAG:
        raise FrameError(f"{name}: not a .cam file")
    matrix = np.frombuffer(data, "<f8", 9, offset=4)
    return Intrinsics(*(float(matrix[at]) for at in (0, 4, 2, 5)))
