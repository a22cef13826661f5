"""TartanAir (Wang et al., IROS 2020), version 1: rendered flights, planar depth in metres, 90° field of view.

Layout: ``ENV/{Easy,Hard}/PNNN/{image_left,depth_left}/FFFFFF_left[_depth].{png,npy}``. Each archive repeats the
environment's name inside, so careless unpacking nests ``ENV/Easy/ENV/Easy``: the innermost names count. The archives
can also be read as they are.
"""

from __future__ import annotations

import re

import numpy as np

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_npy
from dav2.data.raw.sources.item import Item, Options

_FILE = re.compile(
    r"(?:.*/)?(?P<env>[^/]+)/(?P<level>Easy|Hard)/(?P<path>P\d+)/"
    r"(?:image_left/(?P<image>\d+)_left\.png|depth_left/(?P<depth>\d+)_left_depth\.npy)"
)


class TartanAir(Reader[Options]):
    """Rendered flights with planar depth in metres."""

    rules_name = "tartanair"

    def items(self, names: list[str]) -> list[Item]:
        """Left images paired with their depth by number."""
        matches = [(name, match) for name in names if (match := _FILE.fullmatch(name))]
        images = {(*_place(m), int(m["image"])): name for name, m in matches if m["image"]}
        items = []
        for name, match in matches:
            if not match["depth"]:
                continue
            where = (*_place(match), int(match["depth"]))
            if where not in images:
                continue
            environment, level, path, frame = where
            key = make_key(self.name, environment, level, path, f"{frame:06d}")
            items.append(Item(key, environment, "", (images[where], name)))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share environment, level, path and number."""
        match = _FILE.fullmatch(name)
        if not match:
            return None
        return (*_place(match), int(match["image"] or match["depth"])), "image" if match["image"] else "depth"

    def load(self, item: Item) -> Frame:
        """Planar depth in metres under a field of view of 90°.

        Raises:
            FrameError: the depth is no plane of floating-point numbers.
        """
        image = self.image(item.paths[0])
        depth = read_npy(self.tree.read(item.paths[1]), item.paths[1])
        if not np.issubdtype(depth.dtype, np.floating) or depth.ndim != 2:
            raise FrameError(f"{item.paths[1]}: depth must be float (H, W), not {depth.dtype} {depth.shape}")
        return self.labelled(item, image, depth, right_angle_camera(*image.rgb.shape[:2]))


def right_angle_camera(height: int, width: int) -> Intrinsics:
    """Square pixels, 90° across the width, centred: 320, 320, 320, 240 at 640 × 480."""
    return Intrinsics(width / 2, width / 2, width / 2, height / 2)


def _place(match: re.Match[str]) -> tuple[str, str, str]:
    return match["env"], match["level"], match["path"]
