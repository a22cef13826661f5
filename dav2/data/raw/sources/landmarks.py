"""Google Landmarks v2: photographs of landmarks, in tars (``images_000.tar``) or unpacked.

Layout: ``a/b/c/<id>.jpg``, the id being 16 hex digits and the folders its first three. The index and test sets look
the same and are told by the folder above them; only the training set is taken.
"""

from __future__ import annotations

import re

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options

_FILE = re.compile(r"(?P<above>.*?)(?P<folder>[0-9a-f]/[0-9a-f]/[0-9a-f])/(?P<id>[0-9a-f]{16})\.jpg", re.IGNORECASE)


class Landmarks(Photographs[Options]):
    """Photographs of landmarks, without depth."""

    rules_name = "landmarks"

    def place(self, name: str) -> tuple[str, str] | None:
        """The first three digits, and all sixteen; only the training set's."""
        match = _FILE.fullmatch(name)
        if not match or {"index", "test"} & set(match["above"].split("/")):
            return None
        return match["folder"].replace("/", ""), match["id"]
