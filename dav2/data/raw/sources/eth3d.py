"""ETH3D, high-resolution multi-view training scenes (Schöps et al., CVPR 2017): laser-scanned depth of 24 MP images.

Layout: ``<scene>/images/dslr_images/DSC_NNNN.JPG`` and ``<scene>/ground_truth_depth/dslr_images/DSC_NNNN.JPG``, the
latter being headerless float32 in spite of its name, as large as its image, ``inf`` where nothing was measured. The
distorted images pair with this depth, the undistorted ones do not.
"""

from __future__ import annotations

import re

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_raw_float32
from dav2.data.raw.sources.item import Item, Options

_FILE = re.compile(
    r"(?:.*/)?(?P<scene>[^/]+)/(?P<kind>images|ground_truth_depth)/dslr_images/(?P<frame>[^/]+)\.(?:JPG|jpg|png)"
)


class ETH3D(Reader[Options]):
    """Photographs of 24 megapixels with laser-scanned depth in metres."""

    group = "benchmark"
    rules_name = "eth3d"

    def items(self, names: list[str]) -> list[Item]:
        """Distorted images that have measured depth."""
        matches = [match for match in map(_FILE.fullmatch, names) if match]
        depths = {(m["scene"], m["frame"]): m[0] for m in matches if m["kind"] == "ground_truth_depth"}
        items = []
        for match in matches:
            depth = depths.get((match["scene"], match["frame"]))
            if match["kind"] == "images" and depth:
                key = make_key(self.name, match["scene"], match["frame"])
                items.append(Item(key, match["scene"], "test", (match[0], depth)))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share scene and file name."""
        match = _FILE.fullmatch(name)
        if not match:
            return None
        return (match["scene"], match["frame"]), "image" if match["kind"] == "images" else "depth"

    def load(self, item: Item) -> Frame:
        """Depth in metres, as large as the image; ``inf`` in the file is unknown and no sky.

        Raises:
            FrameError: the image is turned by EXIF or no JPEG, so that its headerless depth cannot be laid out.
        """
        image = self.image(item.paths[0])
        if image.upright_jpeg is None:
            # Height and width may have changed places, which the length of the depth file would not show.
            raise FrameError(f"{item.paths[0]}: not an upright JPEG, so its depth file cannot be matched to it")
        height, width = image.rgb.shape[:2]
        depth = read_raw_float32(self.tree.read(item.paths[1]), height, width, item.paths[1])
        return self.labelled(item, image, depth)
