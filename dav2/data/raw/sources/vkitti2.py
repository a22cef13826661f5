"""Virtual KITTI 2 (Cabon et al., 2020): rendered roads, planar depth in centimetres.

Layout: ``SceneSS/<variation>/frames/{rgb,depth}/Camera_C/…``, or ``rgb/SceneSS/…`` beside ``depth/SceneSS/…`` where
the archives were unpacked apart, or the tars themselves. ``intrinsic.txt`` (from the ``textgt`` archive) is used
where it is.

The variations of a scene show the same geometry, so frames are held out by scene, never at random.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from dav2.data.frame import Frame, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import positive, read_png16
from dav2.data.raw.sources.item import Item, Options

METRES_PER_UNIT = 0.01
WIDTH = 1242
CAMERA = (725.0087, 725.0087, 620.5, 187.0)
"""fx, fy, cx, cy as the set has them: from the centre of the first pixel, where a Frame counts from its corner."""
_PLACE = r"(?P<scene>Scene\d+)/(?P<variation>[^/]+)/frames/"
_RGB = re.compile(_PLACE + r"rgb/Camera_(?P<camera>[01])/rgb_(?P<frame>\d+)\.(jpg|png)$")
_DEPTH = re.compile(_PLACE + r"depth/Camera_(?P<camera>[01])/depth_(?P<frame>\d+)\.png$")
_CAMERA = re.compile(r"(?P<scene>Scene\d+)/(?P<variation>[^/]+)/intrinsic\.txt$")


class VirtualKitti2Options(Options):
    """Which cameras are taken."""

    cameras: Literal["0", "1", "both"] = "0"
    """The left camera only, as Depth Anything V2 has it, the right one, or both."""


class VirtualKitti2(Reader[VirtualKitti2Options]):
    """Rendered roads with planar depth in centimetres, given in metres."""

    rules_name = "vkitti2"
    options_type = VirtualKitti2Options

    def items(self, names: list[str]) -> list[Item]:
        """Frames of the chosen cameras, with the intrinsics of the published table where it is there."""
        images = {place(match): name for name in names if (match := _RGB.search(name))}
        cameras = self._cameras(names)
        items = []
        for name in names:
            match = _DEPTH.search(name)
            if not match or self.options.cameras not in ("both", match["camera"]):
                continue
            where = place(match)
            if where not in images:
                continue
            scene, variation, camera, frame = where
            key = make_key(self.name, scene, variation, f"camera_{camera}", f"{frame:05d}")
            extra = cameras.get((scene, variation, camera), {})
            items.append(Item(key, scene, "", (images[where], name), extra))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share scene, variation, camera and number."""
        for pattern, kind in ((_RGB, "image"), (_DEPTH, "depth")):
            match = pattern.search(name)
            if match and self.options.cameras in ("both", match["camera"]):
                return place(match), kind
        return None

    def load(self, item: Item) -> Frame:
        """Planar depth from centimetres to metres; without the table the published camera stands in, scaled to the
        image.
        """
        image = self.image(item.paths[0])
        raw = read_png16(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        depth = np.multiply(raw, np.float32(METRES_PER_UNIT), dtype=np.float32)
        scale = 1.0 if "camera" in item.extra else image.rgb.shape[1] / WIDTH
        fx, fy, cx, cy = item.extra.get("camera", CAMERA)
        camera = Intrinsics(scale * fx, scale * fy, scale * (cx + 0.5), scale * (cy + 0.5))
        return self.labelled(item, image, depth, camera)

    def _cameras(self, names: list[str]) -> dict[tuple[str, str, int], dict[str, object]]:
        """(scene, variation, camera) → ``{"camera": [fx, fy, cx, cy]}``; each is the same in all frames."""
        table: dict[tuple[str, str, int], dict[str, object]] = {}
        for name in names:
            match = _CAMERA.search(name)
            if not match:
                continue
            with self.side_file(name):
                for line in self.text(name).splitlines()[1:]:
                    fields = line.split()
                    if len(fields) >= 6:
                        where = (match["scene"], match["variation"], int(fields[1]))
                        table.setdefault(where, {"camera": positive(fields[2:6])})
        return table


def place(match: re.Match[str]) -> tuple[str, str, int, int]:
    """(scene, variation, camera, frame) of a file name."""
    return match["scene"], match["variation"], int(match["camera"]), int(match["frame"])
