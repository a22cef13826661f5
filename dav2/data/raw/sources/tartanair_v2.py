"""TartanAir V2: 65 environments, 90° pinhole views cut from panoramas; the front camera's left image.

Layout: ``ENV/Data_{easy,hard}/PNNN/{image,depth}_lcam_front/FFFFFF_lcam_front[_depth].png``, unpacked or as zips. A
depth map is float32 metres whose four bytes are the four channels of an 8-bit PNG, written by OpenCV as B, G, R, A.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_png
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.tartanair import right_angle_camera

_DEPTH = re.compile(
    r"(?P<root>(?:.*/)?(?P<env>[^/]+)/Data_(?P<level>easy|hard)/(?P<path>P\d+)/)depth_lcam_front/"
    r"(?P<frame>\d+)_lcam_front_depth\.png"
)

_IMAGE = re.compile(
    r"(?P<env>[^/]+)/Data_(?P<level>easy|hard)/(?P<path>P\d+)/image_lcam_front/(?P<frame>\d+)_lcam_front\.png"
)


class TartanAirV2(Reader[Options]):
    """The front camera's left image with planar depth in metres."""

    rules_name = "tartanair_v2"

    def items(self, names: list[str]) -> list[Item]:
        """Depth maps of the front camera's left image; an image that is not there is told when it is read."""
        images = {tail(name): name for name in names if name.endswith("_lcam_front.png")}
        items = []
        for match in map(_DEPTH.fullmatch, names):
            if not match:
                continue
            place = f"{match['env']}/Data_{match['level']}/{match['path']}"
            wanted = f"{place}/image_lcam_front/{match['frame']}_lcam_front.png"
            key = make_key(self.name, match["env"], match["level"], match["path"], match["frame"])
            items.append(Item(key, match["env"], "", (images.get(wanted, wanted), match[0])))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share environment, level, path and number."""
        if match := _DEPTH.fullmatch(name):
            return (match["env"], match["level"], match["path"], match["frame"]), "depth"
        if match := _IMAGE.fullmatch(tail(name)):
            return (match["env"], match["level"], match["path"], match["frame"]), "image"
        return None

    def load(self, item: Item) -> Frame:
        """Planar depth in metres, unpacked from the four bytes of each pixel, under a field of view of 90°."""
        image = self.image(item.paths[0])
        packed = read_png(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        depth = unpack_depth(packed, item.paths[1])
        return self.labelled(item, image, depth, right_angle_camera(*image.rgb.shape[:2]))


def unpack_depth(rgba: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """uint8 (H, W, 4) in the file's order R, G, B, A → float32 (H, W); byte 0 of each little-endian value is B.

    Raises:
        FrameError: not four channels of 8 bits.
    """
    if rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4:
        raise FrameError(f"{name}: depth must be a PNG of 4 × 8 bits, not {rgba.dtype} {rgba.shape}")
    packed = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])
    return packed.view("<f4")[..., 0].astype(np.float32)


def tail(name: str) -> str:
    """The last five parts of a path, across the border of an archive: environment, level, path, camera, file."""
    return "/".join(name.replace("!/", "/").split("/")[-5:])
