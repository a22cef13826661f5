"""SA-1B: 1,000 tars (``sa_000000.tar`` …) of photographs and masks, or unpacked.

Members are ``./sa_<id>.jpg`` and ``./sa_<id>.json`` in any order; only the photographs are read, by offset. Keys name
the photograph alone, so that it does not matter which tar a mirror keeps it in.
"""

from __future__ import annotations

import re

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options

_FILE = re.compile(r"(?:.*/)?sa_(?P<id>\d+)\.jpg")


class SA1B(Photographs[Options]):
    """Photographs in tars, without depth."""

    rules_name = "sa1b"

    def place(self, name: str) -> tuple[str, str] | None:
        """A thousand numbers to a scene, and the photograph's own."""
        match = _FILE.fullmatch(name)
        return (f"{int(match['id']) // 1000:05d}", f"sa_{match['id']}") if match else None
