"""What archives hold, kept from one scan to the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dav2.files import write_whole

SCAN = "3"
"""Raised when a scan would find something else in the same archive; kept ones are then made again."""
TWICE = "stands in the archive again under the same name; the last one counts"


@dataclass(slots=True)
class Contents:
    """What an archive holds.

    Attributes:
        members: name → (offset, size) in the uncompressed stream.
        refused: (name, reason) of what cannot be a file of a data set.
        noise: members that file managers leave, which are left out.
    """

    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)
    noise: int = 0

    def add(self, name: str, offset: int, size: int) -> None:
        """A member; an earlier one of the same name is refused, as unpacking would overwrite it."""
        if name in self.members:
            self.refused.append((name, TWICE))
        self.members[name] = (offset, size)


def cache_folder() -> Path:
    """Where scans are kept."""
    return Path(os.environ.get("DAV2_CACHE", ".dav2/cache"))


def cached(identity: str, scan: Callable[[], Contents]) -> Contents:
    """What a scan finds, kept in a file under ``identity``, the archive's path, size and time."""
    digest = hashlib.sha256(f"{SCAN}\n{identity}".encode()).hexdigest()
    path = cache_folder() / "archives" / f"{digest[:32]}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        members = {str(n): (int(o), int(s)) for n, o, s in kept["members"]}
        return Contents(members, [(str(n), str(r)) for n, r in kept["refused"]], int(kept["noise"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        contents = scan()
    rows = [[n, o, s] for n, (o, s) in contents.members.items()]
    body = {"members": rows, "refused": contents.refused, "noise": contents.noise}
    try:
        write_whole(path, json.dumps(body))
    except OSError:
        # A read-only working folder only costs the scan being done again.
        return contents
    return contents
