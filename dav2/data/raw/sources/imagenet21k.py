"""ImageNet-21K: one tar per synset, loose or within one large tar; or unpacked into a folder per synset.

Layout: ``[winter21_whole/]n########[.tar]/n########_####.JPEG``. The suffix promises nothing: PNG, GIF and CMYK JPEG
occur under it, and the "photo unavailable" image of a photo service stands in for many.
"""

from __future__ import annotations

import re

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options

_FILE = re.compile(r"(?:.*/)?(?P<synset>n\d{8})_(?P<number>\d+)\.jpe?g", re.IGNORECASE)


class ImageNet21K(Photographs[Options]):
    """Photographs by synset, without depth."""

    rules_name = "imagenet21k"

    def place(self, name: str) -> tuple[str, str] | None:
        """The synset, and the number after it."""
        match = _FILE.fullmatch(name)
        return (match["synset"], match["number"]) if match else None
