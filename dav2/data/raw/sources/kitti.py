"""KITTI, Eigen's splits (Geiger et al., IJRR 2013; Uhrig et al., 3DV 2017): roads with annotated lidar depth.

Layout: the raw recordings (``2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.{png,jpg}``) beside
``data_depth_annotated/{train,val}/<drive>_sync/proj_depth/groundtruth/image_02/…png`` (metres × 256, 0 = no return).

Which frames: the option ``list``, else the first list found in the data set, else every depth map that has an image.
Two kinds of list are read: ``folder index side`` (monodepth2: 697 frames, of which 652 have depth) and ``image depth
[focal]`` (BTS, ZoeDepth, Marigold). Crops belong to the protocol, not to the reader.

With the option ``part: train`` it is what metric models are trained on: a published list of training frames, else every
annotated frame whose drive holds no frame of the test list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dav2.data.frame import Frame, Intrinsics, make_key
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.accounts import some
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import positive, read_png16
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.lists import Locator, read_lines

METRES_PER_UNIT = np.float32(1 / 256)
_LISTS = ("eigen_benchmark/test_files.txt", "eigen/test_files.txt", "eigen_test_files_with_gt.txt",
          "kitti_eigen_test.txt", "val.txt")  # fmt: skip
_TRAIN_LISTS = ("eigen_train_files_with_gt.txt", "kitti_eigen_train.txt", "eigen_zhou/train_files.txt",
                "eigen_full/train_files.txt", "train.txt")  # fmt: skip
_SIDES = {"l": "02", "r": "03", "2": "02", "3": "03"}
_IMAGE = re.compile(
    r"(?:.*/)?(?P<date>\d{4}_\d\d_\d\d)/(?P<drive>[^/]+_sync)/image_0(?P<camera>[23])/data/(?P<frame>\d{10})\.(?:png|jpg)"
)

_DEPTH = re.compile(
    r"(?:.*/)?(?P<drive>[^/]+_sync)/proj_depth/groundtruth/image_0(?P<camera>[23])/(?P<frame>\d{10})\.png"
)


class KittiOptions(Options):
    """Which frames are taken."""

    part: Literal["test", "train"] = "test"
    """``train`` is what metric models learn from, with group ``real``."""


class Kitti(Reader[KittiOptions]):
    """Roads with annotated lidar depth in metres, unknown where no ray fell."""

    group = "benchmark"
    rules_name = "kitti"
    options_type = KittiOptions
    halves_are_usual = True
    """The recordings hold far more images than were annotated, and the annotations are of all drives."""

    def items(self, names: list[str]) -> list[Item]:
        """Frames of the list, or all that have annotated depth; those without are told in a note."""
        locate = Locator(names)
        calibrations = self._calibrations(names)
        items, without_depth = [], list[str]()
        for image, depth in self._pairs(names, locate):
            match = _IMAGE.fullmatch(image)
            if not match:
                continue
            if depth is None:
                without_depth.append(image)
                continue
            drive = match["drive"].removesuffix("_sync")
            extra = calibrations.get((match["date"], match["camera"]), {})
            key = make_key(self.name, drive, f"image_0{match['camera']}", match["frame"])
            split = "test" if self.options.part == "test" else ""
            items.append(Item(key, drive, split, (image, depth), extra))
        if without_depth:
            count = len(without_depth)
            self._notes.append(f"left out: {count} frames have no annotated depth: {some(without_depth)}")
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share drive, camera and number."""
        for pattern, kind in ((_IMAGE, "image"), (_DEPTH, "depth")):
            if match := pattern.fullmatch(name):
                return (match["drive"], match["camera"], match["frame"]), kind
        return None

    def listed(self, items: list[Item], names: list[str]) -> list[Item]:
        """All items: ``items`` has read the list already, whichever of the two kinds it is."""
        return items

    def load(self, item: Item) -> Frame:
        """Depth in metres from 256ths; 0 is unknown. The camera is that of the recording's calibration, where it is
        there.
        """
        image = self.image(item.paths[0])
        raw = read_png16(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        camera = Intrinsics(*item.extra["camera"]) if "camera" in item.extra else None
        return self.labelled(item, image, raw * METRES_PER_UNIT, camera)

    def _pairs(self, names: list[str], locate: Locator) -> list[tuple[str, str | None]]:
        lists = _TRAIN_LISTS if self.options.part == "train" else _LISTS
        chosen = self.options.list or _first(names, lists)
        if chosen is None:
            tested = self._tested(names, locate) if self.options.part == "train" else set[str]()
            found = [match for name in names if (match := _IMAGE.fullmatch(name)) and match["drive"] not in tested]
            return [(match[0], _depth_of(match, locate)) for match in found]
        pairs, absent = [], list[str]()
        for fields in read_lines(self.tree, chosen, names):
            if len(fields) == 3 and fields[2] in _SIDES:
                folder = f"{fields[0]}/image_{_SIDES[fields[2]]}/data"
                image = locate(f"{folder}/{fields[1].zfill(10)}.png")
            else:
                image = locate(fields[0])
            match = _IMAGE.fullmatch(image) if image else None
            if image is None or match is None:
                absent.append(" ".join(fields))
                continue
            pairs.append((image, _depth_of(match, locate)))
        self._notes.append(
            f"frames: {len(pairs)} of {len(pairs) + len(absent)} of the list {chosen}"
            + (f"; not there: {some(absent)}" if absent else "")
        )
        return pairs

    def _tested(self, names: list[str], locate: Locator) -> set[str]:
        """Drives that hold frames of the test list.

        Raises:
            SourceError: there is no such list, so that nothing tells which frames must not be trained on.
        """
        chosen = _first(names, _LISTS)
        if chosen is None:
            raise SourceError(
                f"{self.path}: part: train needs a list of training frames (option 'list', or one of "
                f"{', '.join(_TRAIN_LISTS)} there), or the test list, whose drives are then left out"
            )
        lines = read_lines(self.tree, chosen, names)
        return {part for fields in lines for part in fields[0].split("/") if part.endswith("_sync")}

    def _calibrations(self, names: list[str]) -> dict[tuple[str, str], dict[str, list[float]]]:
        """(date, camera) → ``{"camera": [fx, fy, cx, cy]}`` from ``P_rect_0C`` of ``calib_cam_to_cam.txt``."""
        table = {}
        for name in names:
            match = re.search(r"(\d{4}_\d\d_\d\d)/calib_cam_to_cam\.txt$", name)
            if not match:
                continue
            with self.side_file(name):
                for line in self.text(name).splitlines():
                    row = re.match(r"P_rect_0([23]):\s+(.+)", line)
                    if row:
                        fx, _, cx, _, _, fy, cy = (float(value) for value in row[2].split()[:7])
                        # P counts pixels from the centre of the first one; a Frame counts from its corner.
                        table[match[1], row[1]] = {"camera": positive([fx, fy, cx + 0.5, cy + 0.5])}
        return table


def _first(names: list[str], tails: Sequence[str]) -> str | None:
    """The first file of the data set with one of the names, in their order."""
    return next((name for tail in tails for name in names if f"/{name}".endswith(f"/{tail}")), None)


def _depth_of(image: re.Match[str], locate: Locator) -> str | None:
    return locate(f"{image['drive']}/proj_depth/groundtruth/image_0{image['camera']}/{image['frame']}.png")
