"""Places365, standard or challenge training set: photographs by category, in one tar or unpacked.

Layout: ``data_large[_standard|_challenge]/<letter>/<category>[/<kind>]/<8 digits>.jpg``. File names repeat from
category to category, so the key holds the category. Both sets unpack to ``data_large``; never unpack them into one
folder.
"""

from __future__ import annotations

import re

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options

_FILE = re.compile(r"(?:.*/)?data_(?:large|256)[^/]*/(?P<category>[a-z]/.+)/(?P<id>\d{8})\.jpg")


class Places365(Photographs[Options]):
    """Photographs by category, without depth."""

    rules_name = "places365"

    def place(self, name: str) -> tuple[str, str] | None:
        """The category, and the number of eight digits."""
        match = _FILE.fullmatch(name)
        return (match["category"], match["id"]) if match else None
