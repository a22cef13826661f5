"""NYU Depth V2 (Silberman et al., ECCV 2012): rooms with the depth of a structured-light sensor.

Three forms are read: ``nyu_depth_v2_labeled.mat`` (HDF5, axes transposed) with ``splits.mat``; the export of BTS and
monocular benchmarks, ``official_splits/test/<scene>/{rgb_NNNNN.jpg,sync_depth_NNNNN.png}``; and Marigold's,
``test/<scene>/{rgb,depth,filled}_NNNN.png``. PNG depth is in millimetres. Crops belong to the protocol, not to the
reader.

The option ``part`` chooses between the 654 labelled test images and what metric models are trained on: the 795 labelled
training images of the ``.mat``, or the synchronised frames of the raw recordings, which BTS puts into ``sync/<scene>/``
or ``train/<scene>/`` under the names of the test images.
"""

from __future__ import annotations

import io
import re
from typing import Literal

import numpy as np

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.images import Decoded
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import plain_array, read_png16
from dav2.data.raw.sources.item import Item, Options
from dav2.failures import reason

MILLIMETRES = np.float32(0.001)
MAT = "nyu_depth_v2_labeled.mat"
SPLITS = "splits.mat"
_FOLDERS = {"test": "test", "train": "(?:train|sync)"}


def _patterns(folder: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Of an image, and of any file of a frame, below ``folder``."""
    image = rf"(?P<root>(?:.*/)?{folder}/(?P<scene>[^/]+))/rgb_(?P<frame>\d+)\.(?:jpg|png)"
    half = rf"(?P<root>(?:.*/)?{folder}/[^/]+)/(?P<kind>rgb|depth|sync_depth|filled)_(?P<frame>\d+)\.(?:jpg|png)"
    return re.compile(image), re.compile(half)


_PATTERNS = {part: _patterns(folder) for part, folder in _FOLDERS.items()}


class NYUOptions(Options):
    """Which images and which depth are taken."""

    part: Literal["test", "train"] = "test"
    """``train`` is what metric models learn from, with group ``real``."""
    depth: Literal["raw", "filled"] = "raw"
    """``raw`` is what benchmarks score; ``filled`` is in-painted (not in the BTS export)."""


class NYUv2(Reader[NYUOptions]):
    """Rooms with planar depth in metres, unknown where the sensor saw nothing."""

    group = "benchmark"
    rules_name = "nyu"
    options_type = NYUOptions

    def items(self, names: list[str]) -> list[Item]:
        """Frames of the ``.mat`` file where it is there, else of the exported pictures."""
        mat = next((name for name in names if name.rpartition("/")[2] == MAT), None)
        return self._mat_items(mat, names) if mat else self._exported_items(names)

    @property
    def _split(self) -> str:
        """Of the official test images; what is trained on is held out by scene."""
        return "test" if self.options.part == "test" else ""

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share folder and number; which depth counts is for the option to say."""
        match = _PATTERNS[self.options.part][1].fullmatch(name)
        if not match:
            return None
        wanted = ("depth", "sync_depth") if self.options.depth == "raw" else ("filled",)
        kind = "image" if match["kind"] == "rgb" else "depth" if match["kind"] in wanted else None
        return ((match["root"], match["frame"]), kind) if kind else None

    def load(self, item: Item) -> Frame:
        """Depth in metres; 0 is unknown."""
        if "row" in item.extra:
            return self._load_mat(item)
        image = self.image(item.paths[0])
        raw = read_png16(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        return self.labelled(item, image, raw * MILLIMETRES)

    def _exported_items(self, names: list[str]) -> list[Item]:
        there = set(names)
        prefixes = ("depth", "sync_depth") if self.options.depth == "raw" else ("filled",)
        items = []
        for match in map(_PATTERNS[self.options.part][0].fullmatch, names):
            if not match:
                continue
            options = [f"{match['root']}/{prefix}_{match['frame']}.png" for prefix in prefixes]
            depth = next((name for name in options if name in there), options[-1])
            key = make_key(self.name, match["scene"], match["frame"])
            items.append(Item(key, match["scene"], self._split, (match[0], depth)))
        return items

    def _mat_items(self, mat: str, names: list[str]) -> list[Item]:
        from scipy.io import loadmat

        splits = next((name for name in names if name.rpartition("/")[2] == SPLITS), None)
        if splits is None:
            raise SourceError(f"{self.path}: {SPLITS} is missing beside {MAT}; it says which images are the test set")
        wanted = f"{self.options.part}Ndxs"
        try:
            rows = [int(row) for row in loadmat(io.BytesIO(self.tree.read(splits)))[wanted].ravel()]
        except Exception as error:
            raise SourceError(f"{self.path}: {splits} holds no '{wanted}': {reason(error)}") from error
        # MATLAB counts from 1.
        return [
            Item(make_key(self.name, "labeled", f"{row:04d}"), "labeled", self._split, (mat,), {"row": row - 1})
            for row in rows
        ]

    def _load_mat(self, item: Item) -> Frame:
        import h5py

        row = item.extra["row"]
        name = "rawDepths" if self.options.depth == "raw" else "depths"
        try:
            with self.tree.open(item.paths[0]) as stream, h5py.File(stream, "r") as file:
                limit = self.options.max_pixels
                images = plain_array(file, "images", item.paths[0], limit, rows=True)
                depths = plain_array(file, name, item.paths[0], limit, rows=True)
                rgb = np.ascontiguousarray(images[row].transpose(2, 1, 0))
                depth = np.ascontiguousarray(depths[row].T)
        except (OSError, KeyError, RuntimeError, IndexError, ValueError) as error:
            raise FrameError(f"{item.paths[0]}: image {row} cannot be read: {error}") from error
        return self.labelled(item, Decoded(rgb, None), depth)
