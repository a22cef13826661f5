"""Every file of a data set is used, left out by its kind, or named as failed: nothing is dropped unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

NAMED = 5
"""So many names are given where there may be thousands of a kind."""


@dataclass(frozen=True)
class Accounts:
    """Files of a data set: ``found`` = ``used`` + ``left_out`` + ``failed``.

    Attributes:
        used: belong to a frame.
        left_out: kind → number, of what is no part of any frame.
        failed: cannot be read, or are half a frame.
    """

    used: int
    left_out: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    @property
    def found(self) -> int:
        """All files there are."""
        return self.used + self.left_out.total() + self.failed

    def __str__(self) -> str:
        return tally("files", self.found, f"{self.used} used", self.left_out, self.failed)


def tally(what: str, found: int, used: str, left_out: Counter[str], failed: int) -> str:
    """``files: 9 found = 5 used + 3 left out (HEIC 2, TXT 1) + 1 failed``."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(left_out.items()) if count)
    passed_over = f"{left_out.total()} left out{f' ({kinds})' if kinds else ''}"
    return f"{what}: {found} found = {used} + {passed_over} + {failed} failed"


def kind_of(name: str) -> str:
    """What kind of file a name promises: its suffix in capitals."""
    _, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.upper() if dot and suffix else "without a suffix"


def halves(names: Iterable[str], part: Callable[[str], tuple[object, str] | None]) -> list[tuple[str, str]]:
    """Files of frames of which only one half is there, each with what it lacks.

    Args:
        part: the frame that a file belongs to, and whether it is its ``image`` or its ``depth``; ``None`` for others.
    """
    there: dict[object, dict[str, str]] = {}
    for name in names:
        found = part(name)
        if found is not None:
            there.setdefault(found[0], {})[found[1]] = name
    lacking = {"image": "depth", "depth": "image"}
    alone = [next(iter(parts.items())) for parts in there.values() if len(parts) == 1]
    return sorted((name, f"half a frame: its {lacking[kind]} is not there") for kind, name in alone)


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
