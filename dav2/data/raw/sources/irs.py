"""IRS (Wang et al., 2019): rendered interiors as stereo pairs; the left image and its disparity.

Layout: ``[IRSDataset/]{Home,Office,Restaurant,Store}/<scene>/{l_NNNNN.png,d_NNNNN.exr}``. Early releases number
without leading zeros, so files are paired by number. The disparity is a float channel named ``G``; depth = 48 /
disparity metres (480 px focal length × 0.1 m baseline). The official test list takes every 7th frame of the same
scenes: it is not used, and scenes are held out instead.
"""

from __future__ import annotations

import re

import numpy as np

from dav2.data.frame import Frame, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_exr
from dav2.data.raw.sources.item import Item, Options

FOCAL_TIMES_BASELINE = 48.0
_FILE = re.compile(
    r"(?:.*/)?(?P<kind>Home|Office|Restaurant|Store)/(?P<scene>[^/]+)/(?:l_(?P<image>\d+)\.png|d_(?P<disparity>\d+)\.exr)"
)


class IRS(Reader[Options]):
    """Rendered interiors; depth from the disparity of a stereo pair, in metres."""

    rules_name = "irs"

    def items(self, names: list[str]) -> list[Item]:
        """Left images paired with their disparities by number, with or without leading zeros."""
        matches = [(name, match) for name in names if (match := _FILE.fullmatch(name))]
        images = {(m["kind"], m["scene"], int(m["image"])): name for name, m in matches if m["image"]}
        items = []
        for name, match in matches:
            if not match["disparity"]:
                continue
            where = (match["kind"], match["scene"], int(match["disparity"]))
            if where not in images:
                continue
            kind, scene, frame = where
            key = make_key(self.name, kind, scene, f"{frame:05d}")
            items.append(Item(key, f"{kind}/{scene}", "", (images[where], name)))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share room, scene and number."""
        match = _FILE.fullmatch(name)
        if not match:
            return None
        frame = (match["kind"], match["scene"], int(match["image"] or match["disparity"]))
        return frame, "image" if match["image"] else "depth"

    def load(self, item: Item) -> Frame:
        """Depth in metres, 48 over the disparity in pixels; a disparity of 0 is unknown."""
        image = self.image(item.paths[0])
        data = self.tree.read(item.paths[1])
        disparity = read_exr(data, item.paths[1], "G", max_pixels=self.options.max_pixels)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(disparity > 0, FOCAL_TIMES_BASELINE / disparity, np.nan)
        height, width = image.rgb.shape[:2]
        return self.labelled(item, image, depth, Intrinsics(width / 2, width / 2, width / 2, height / 2))
