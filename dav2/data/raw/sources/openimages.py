"""Open Images V7: photographs named by 16 hex digits, in 16 archives (``train_0.tar.gz`` … ``train_f``) or unpacked.

``image_ids_and_rotation.csv`` beside them says how many degrees a picture must be turned counter-clockwise to stand
upright; it is applied where it is there, after EXIF. Validation and test folders are left out.
"""

from __future__ import annotations

import csv
import io
import re

import numpy as np

from dav2.data.frame import Frame
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Item, Options

_FILE = re.compile(r"(?P<above>.*?)(?P<id>[0-9a-f]{16})\.jpg")
_TABLE = re.compile(r"(?:.*/)?[^/]*rotation[^/]*\.csv")
_OTHER_SETS = re.compile(r"(?:^|/)(?:validation|test|challenge2018)(?:[./_]|$)")


class OpenImages(Photographs[Options]):
    """Photographs, without depth."""

    rules_name = "openimages"

    def place(self, name: str) -> tuple[str, str] | None:
        """A group for each first digit; the other sets are passed over."""
        match = _FILE.fullmatch(name)
        if not match or _OTHER_SETS.search(match["above"]):
            return None
        return f"train_{match['id'][0]}", match["id"]

    def items(self, names: list[str]) -> list[Item]:
        """As for other photographs, with the turns by which a picture comes to stand upright."""
        turned = self._rotations(names)
        items = super().items(names)
        for at, item in enumerate(items):
            quarter_turns = turned.get(item.key.rpartition("/")[2])
            if quarter_turns:
                items[at] = Item(item.key, item.scene, item.split, item.paths, {"quarter_turns": quarter_turns})
        return items

    def load(self, item: Item) -> Frame:
        """The photograph, turned by quarter turns counter-clockwise where the table says so."""
        quarter_turns = item.extra.get("quarter_turns", 0)
        if not quarter_turns:
            return super().load(item)
        image = self.image(item.paths[0])
        return Frame(item.key, np.ascontiguousarray(np.rot90(image.rgb, quarter_turns)))

    def _rotations(self, names: list[str]) -> dict[str, int]:
        """Image id → quarter turns counter-clockwise, for the few per cent that need any."""
        table = next((name for name in names if _TABLE.fullmatch(name)), None)
        if table is None:
            self._notes.append("absent: image_ids_and_rotation.csv, so pictures that lie on their side stay so")
            return {}
        turned = {}
        try:
            with self.tree.open(table) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as lines:
                for row in csv.DictReader(lines):
                    degrees = float(row["Rotation"] or 0)
                    # nan, which stands where the rotation is not known, compares unequal to everything.
                    if degrees in (90.0, 180.0, 270.0):
                        turned[row["ImageID"]] = int(degrees) // 90
        except (KeyError, ValueError, csv.Error) as error:
            raise SourceError(f"{self.path}: {table} has no usable columns ImageID and Rotation: {error!r}") from error
        return turned
