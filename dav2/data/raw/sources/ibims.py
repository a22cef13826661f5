"""iBims-1 (Koch et al., 2018): 100 laser-scanned rooms with masks and occlusion edges.

Two forms are read: ``ibims1_core_raw`` (``rgb``, ``depth`` as uint16 × 50 / 65535 metres, ``mask_invalid``,
``mask_transp``, ``edges``) and ``ibims1_core_mat`` (one ``.mat`` per image with a struct ``data``). Masks are > 0
where depth holds. ``extra["edges"]`` is the map of occlusion edges, as a base64 PNG.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.images import Decoded, encode_png
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_png, read_png16
from dav2.data.raw.sources.item import Item, Options, without_suffix

METRES_PER_UNIT = np.float32(50 / 65535)
MASKS = ("mask_invalid", "mask_transp")
_RAW = re.compile(r"(?P<root>(?:.*/)?)depth/(?P<frame>[^/]+)\.png")
_HALF = re.compile(r"(?P<root>(?:.*/)?)(?P<kind>rgb|depth)/(?P<frame>[^/]+)\.png")
_MAT = re.compile(r"(?:.*/)?ibims1_core_mat/(?P<frame>[^/]+)\.mat")


class IBims(Reader[Options]):
    """Rooms with laser-scanned depth in metres and occlusion edges."""

    group = "benchmark"
    rules_name = "ibims"

    def items(self, names: list[str]) -> list[Item]:
        """Frames of either form; where both lie side by side, the images and not the ``.mat`` files."""
        items = []
        for name in names:
            if match := _RAW.fullmatch(name):
                others = [f"{match['root']}{kind}/{match['frame']}.png" for kind in (*MASKS, "edges")]
                paths = (f"{match['root']}rgb/{match['frame']}.png", name, *others)
            elif match := _MAT.fullmatch(name):
                paths = (name,)
            else:
                continue
            items.append(Item(make_key(self.name, "core", match["frame"]), match["frame"], "test", paths))
        # Where both forms lie side by side, the .mat files repeat the others.
        raw = {item.key for item in items if len(item.paths) > 1}
        return [item for item in items if len(item.paths) > 1 or item.key not in raw]

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share the folder and the name; a ``.mat`` file holds both."""
        match = _HALF.fullmatch(name)
        if not match:
            return None
        return (match["root"], match["frame"]), "image" if match["kind"] == "rgb" else "depth"

    def load(self, item: Item) -> Frame:
        """Depth in metres where both masks hold."""
        if len(item.paths) == 1:
            return self._load_mat(item)
        image = self.image(item.paths[0])
        raw = read_png16(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        *masks, edges = (read_png(self.tree.read(name), name) > 0 for name in item.paths[2:])
        return self._frame(item, image, raw * METRES_PER_UNIT, masks, edges)

    def _load_mat(self, item: Item) -> Frame:
        from scipy.io import loadmat

        name = item.paths[0]
        try:
            data: Any = loadmat(io.BytesIO(self.tree.read(name)), squeeze_me=True, struct_as_record=False)["data"]
            image = Decoded(np.ascontiguousarray(data.rgb, np.uint8), None)
            masks = [np.asarray(getattr(data, mask)) > 0 for mask in MASKS]
            return self._frame(item, image, np.asarray(data.depth, np.float32), masks, np.asarray(data.edges) > 0)
        except (FrameError, MemoryError):
            raise
        except Exception as error:
            raise FrameError(f"{name}: no readable struct 'data': {error}") from error

    def _frame(
        self,
        item: Item,
        image: Decoded,
        depth: NDArray[np.generic],
        masks: list[NDArray[np.bool_]],
        edges: NDArray[np.bool_],
    ) -> Frame:
        for name, mask in zip((*MASKS, "edges"), (*masks, edges), strict=True):
            if mask.shape != depth.shape:
                raise FrameError(f"{without_suffix(item.paths[0])}: {name} is {mask.shape}, depth {depth.shape}")
        packed = base64.b64encode(encode_png(edges.astype(np.uint8) * 255, level=9)).decode("ascii")
        return self.labelled(item, image, np.where(masks[0] & masks[1], depth, np.nan), None, {"edges": packed})
