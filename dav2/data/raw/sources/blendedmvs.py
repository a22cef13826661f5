"""BlendedMVS, MVS+ and MVS++ (Yao et al., CVPR 2020; together BlendedMVG): textured meshes rendered into photographs.

Layout: ``<24 hex digits>/{blended_images/NNNNNNNN.jpg,rendered_depth_maps/NNNNNNNN.pfm,cams/NNNNNNNN_cam.txt}``.
Every image has a twin ``…_masked.jpg`` with a black background, which is skipped. Depth is planar, of arbitrary scale
per scene; 0 is where nothing was reconstructed, sky included, so there is no sky label.
"""

from __future__ import annotations

import re

from dav2.data.frame import Frame, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_pfm
from dav2.data.raw.sources.item import Item, Options

VALIDATION = frozenset({
    "5b7a3890fc8fcf6781e2593a", "5c189f2326173c3a09ed7ef3", "5b950c71608de421b1e7318f", "5a6400933d809f1d8200af15",
    "59d2657f82ca7774b1ec081d", "5ba19a8a360c7c30c1c169df", "59817e4a1bd4b175e7038d19",
})  # fmt: skip
"""``project_lists/validation_list.txt`` of YoYo000/BlendedMVS."""
_DEPTH = re.compile(r"(?P<root>(?:.*/)?(?P<scene>[0-9a-f]{24}))/rendered_depth_maps/(?P<frame>\d{8})\.pfm")

_IMAGE = re.compile(r"(?P<root>(?:.*/)?[0-9a-f]{24})/blended_images/(?P<frame>\d{8})\.jpg")


class BlendedMVS(Reader[Options]):
    """Photographs of rendered meshes with planar depth in a unit of each scene."""

    rules_name = "blendedmvs"
    metric = False

    def items(self, names: list[str]) -> list[Item]:
        """Depth maps with images and cameras; the published scenes of validation are held out where any is there."""
        there = set(names)
        matches = [match for match in map(_DEPTH.fullmatch, names) if match]
        official = any(match["scene"] in VALIDATION for match in matches)
        items = []
        for match in matches:
            root, scene, frame = match["root"], match["scene"], match["frame"]
            split = "" if not official else "val" if scene in VALIDATION else "train"
            camera = f"{root}/cams/{frame}_cam.txt"
            paths = (f"{root}/blended_images/{frame}.jpg", match[0], *([camera] if camera in there else []))
            items.append(Item(make_key(self.name, scene, frame), scene, split, paths))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share the scene's folder and the number."""
        for pattern, kind in ((_IMAGE, "image"), (_DEPTH, "depth")):
            if match := pattern.fullmatch(name):
                return (match["root"], match["frame"]), kind
        return None

    def load(self, item: Item) -> Frame:
        """Planar depth in the scene's own unit; 0 is unknown, sky included."""
        image = self.image(item.paths[0])
        depth = read_pfm(self.tree.read(item.paths[1]), item.paths[1])
        camera = parse_camera(self.tree.read(item.paths[2])) if len(item.paths) > 2 else None
        return self.labelled(item, image, depth, camera)


def parse_camera(data: bytes) -> Intrinsics | None:
    """Pinhole camera of a ``cam.txt``, or ``None`` where it holds none.

    After the word ``intrinsic`` stand the nine numbers of K; the minimum depth in the last line may be ≤ 0 in the
    releases and is not used.
    """
    words = data.decode("utf-8", "replace").split()
    if "intrinsic" not in words:
        return None
    at = words.index("intrinsic") + 1
    try:
        fx, _, cx, _, fy, cy = (float(word) for word in words[at : at + 6])
    except ValueError:
        return None
    return Intrinsics(fx, fy, cx, cy)
