"""DIODE (Vasiljevic et al., 2019), validation set: laser-scanned indoor and outdoor depth.

Layout: ``[val/]{indoors,outdoor}/scene_NNNNN/scan_NNNNN/<stem>{.png,_depth.npy,_depth_mask.npy}``; depth is float32
(H, W, 1) in metres, the mask is 1 where it holds. Eroding the mask at edges belongs to the protocol.
"""

from __future__ import annotations

import re

import numpy as np

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_npy
from dav2.data.raw.sources.item import Item, Options

CAMERA = Intrinsics(886.81, 927.06, 512.0, 384.0)
SIZE = (768, 1024)
_DEPTH = re.compile(
    r"(?P<root>(?P<above>.*?)(?P<kind>indoors|outdoor)/(?P<scene>scene_\d+)/(?P<scan>scan_\d+)/(?P<stem>[^/]+))_depth\.npy"
)

_IMAGE = re.compile(r"(?P<root>(?P<above>.*?)(?:indoors|outdoor)/scene_\d+/scan_\d+/[^/]+)\.png")


class Diode(Reader[Options]):
    """Indoor and outdoor views with laser-scanned depth in metres."""

    group = "benchmark"
    rules_name = "diode"

    def items(self, names: list[str]) -> list[Item]:
        """Depth maps of the validation set; what lies below a folder ``train`` is passed over."""
        items = []
        for match in map(_DEPTH.fullmatch, names):
            if match and "train" not in match["above"].split("/"):
                root, scene = match["root"], f"{match['kind']}/{match['scene']}"
                key = make_key(self.name, match["kind"], match["scene"], match["scan"], match["stem"])
                items.append(Item(key, scene, "test", (f"{root}.png", match[0], f"{root}_depth_mask.npy")))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share the path without its suffix."""
        if match := _DEPTH.fullmatch(name):
            kind, root, above = "depth", match["root"], match["above"]
        elif match := _IMAGE.fullmatch(name):
            kind, root, above = "image", match["root"], match["above"]
        else:
            return None
        return (root, kind) if "train" not in above.split("/") else None

    def load(self, item: Item) -> Frame:
        """Depth in metres where the mask holds, with the published camera where the size is the published one.

        Raises:
            FrameError: depth and mask differ in size.
        """
        image = self.image(item.paths[0])
        depth, mask = (read_npy(self.tree.read(name), name) for name in item.paths[1:])
        if depth.ndim == 3 and depth.shape[2] == 1:
            depth = depth[..., 0]
        if depth.shape != mask.shape:
            raise FrameError(f"{item.paths[2]}: mask is {mask.shape}, depth {depth.shape}")
        camera = CAMERA if depth.shape == SIZE else None
        return self.labelled(item, image, np.where(mask > 0, depth, np.nan), camera)
