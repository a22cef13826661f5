"""DA-2K (Yang et al., 2024): sparse pairs of points in 1,033 diverse images; which of the two is closer.

Layout: ``DA-2K.zip`` or its contents: ``DA-2K/annotations.json`` and ``DA-2K/images/<kind>/<file>``. The annotations
are keyed by ``images/<kind>/<file>``; points are (row, column) in pixels of the original image. Some file names are
stored in the zip as UTF-8 without saying so, and come out garbled or in another Unicode form depending on what
unpacked them.
"""

from __future__ import annotations

import contextlib
import unicodedata
from typing import Any

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item, Options, without_suffix
from dav2.data.text import decode_json

ANNOTATIONS = "annotations.json"


class DA2K(Reader[Options]):
    """Images with pairs of points of which the closer one is known."""

    group = "benchmark"
    rules_name = "da2k"

    def items(self, names: list[str]) -> list[Item]:
        """One item for each annotated image, its pairs in ``extra``; a damaged annotation or a lost image is refused.

        Raises:
            SourceError: there are no annotations.
        """
        listing = next((name for name in names if name.rpartition("/")[2] == ANNOTATIONS), None)
        if listing is None:
            raise SourceError(f"{self.path}: no {ANNOTATIONS} there; run 'dvc pull data.dvc', or place DA-2K.zip there")
        root = listing.removesuffix(ANNOTATIONS)
        find = NameFinder([name.removeprefix(root) for name in names if name.startswith(root)])
        items = []
        for image, annotated in sorted(self._annotations(listing).items()):
            kind = image.split("/")[1] if image.count("/") >= 2 else "unknown"
            frame = without_suffix(image).rpartition("/")[2]
            found = find(image)
            try:
                pairs = _pairs(annotated)
            except (ValueError, KeyError, TypeError, OverflowError) as error:
                items.append(self.refused(kind, frame, image, f"its annotation is damaged: {error!r}"))
                continue
            if found is None:
                items.append(self.refused(kind, frame, image, "annotated, but the image is not there"))
                continue
            extra = {"pairs": pairs, "scene": kind}
            items.append(Item(make_key(self.name, kind, frame), kind, "test", (root + found,), extra))
        return items

    def load(self, item: Item) -> Frame:
        """The photograph with ``extra``: ``pairs`` of points (row, column) in pixels, and the kind of ``scene``.

        Raises:
            FrameError: a point lies outside the image.
        """
        image = self.image(item.paths[0])
        height, width = image.rgb.shape[:2]
        for pair in item.extra["pairs"]:
            for row, column in (pair["point1"], pair["point2"]):
                if not (0 <= row < height and 0 <= column < width):
                    raise FrameError(f"{item.paths[0]}: point ({row}, {column}) lies outside {width} × {height}")
        return Frame(item.key, image.rgb, jpeg=image.upright_jpeg, extra=dict(item.extra))

    def _annotations(self, name: str) -> dict[str, object]:
        """Image → what is said about it."""
        document = decode_json(self.tree.read(name), name)
        if not isinstance(document, dict):
            raise SourceError(f"{self.path}: {name} is not DA-2K's annotation file: a {type(document).__name__}")
        return document


def _pairs(annotated: Any) -> list[dict[str, object]]:
    """``{"point1": [row, column], "point2": [row, column], "closer": 1 | 2}`` of each pair of one image."""
    pairs = []
    for pair in annotated:
        points = {name: [int(value) for value in pair[name]] for name in ("point1", "point2")}
        if any(len(point) != 2 for point in points.values()):
            raise ValueError(f"a point has a row and a column: {pair}")
        pairs.append({**points, "closer": {"point1": 1, "point2": 2}[pair["closer_point"]]})
    return pairs


class NameFinder:
    """Finds a file by the name it should have: as it is, in another Unicode form, or by its readable beginning."""

    def __init__(self, names: list[str]) -> None:
        self._exact = set(names)
        self._normal = {_normal(name): name for name in names}
        self._names = sorted(names)

    def __call__(self, wanted: str) -> str | None:
        if wanted in self._exact:
            return wanted
        if _normal(wanted) in self._normal:
            return self._normal[_normal(wanted)]
        beginning = wanted[: next((at for at, letter in enumerate(wanted) if not letter.isascii()), len(wanted))]
        if beginning == wanted or beginning.endswith("/"):
            return None
        candidates = [name for name in self._names if name.startswith(beginning) and not name.isascii()]
        return candidates[0] if len(candidates) == 1 else None


def _normal(name: str) -> str:
    """NFC, after undoing a reading of UTF-8 bytes as CP437."""
    with contextlib.suppress(UnicodeError):
        name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name)
