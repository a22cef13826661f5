"""Objects365 v2: photographs in 51 archives (``patch0.tar.gz`` …) or unpacked; the training set.

Layout: ``[train/]patchN/objects365_v{1,2}_########.jpg``. The validation set has folders ``v1`` or ``v2`` above its
patches and is left out.
"""

from __future__ import annotations

import re

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options

_FILE = re.compile(r"(?P<above>.*?)(?P<patch>patch\d+)(?:\.[a-z.]+!)?/(?:patch\d+/)?(?P<id>objects365_v[12]_\d+)\.jpg")


class Objects365(Photographs[Options]):
    """Photographs of objects, without depth."""

    rules_name = "objects365"

    def place(self, name: str) -> tuple[str, str] | None:
        """The patch, and the number; only the training set's."""
        match = _FILE.fullmatch(name)
        if not match or {"v1", "v2", "val"} & set(match["above"].split("/")):
            return None
        return match["patch"], match["id"]
