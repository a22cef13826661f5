"""The floor plan, drawn from the imports: ``python -m dav2.house``.

Rooms are packages (and the single files of the ground floor); each may use what lies below it, and nothing else. A test
holds the code to the plan.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from dav2.imports import imports_of, module_file

FLOORS: tuple[tuple[str, ...], ...] = (
    ("cli", "house"),
    ("report", "planning", "doctor", "demo"),
    ("evaluation", "tracking", "pseudo_label", "predict", "quality"),
    ("families.depth_anything", "families.marigold"),
    ("families",),
    ("training",),
    ("scores", "data.feed"),
    ("data.store",),
    ("data.raw",),
    ("data",),
    ("runs", "licences"),
    ("params", "documents"),
    (
        *("ahead", "chips", "code_state", "durations", "extras", "failures", "files", "gpu_errors", "imports"),
        *("layout", "limits", "locks", "machine"),
        *("maps", "memory", "names", "pages", "pictures", "slurm", "tf32", "walk"),
    ),
)
"""Rooms from the top floor to the ground. Rooms of one floor do not use each other, but for single files of the ground
floor. ``scenes``, which renders the sample, stands alone, and ``dav2`` itself is the door."""
ALONE, DOOR = "scenes", "dav2"


def modules() -> list[str]:
    """All modules of the package, in alphabetical order."""
    door = module_file(DOOR)
    assert door is not None
    top = door.parent
    names = [path.relative_to(top.parent).with_suffix("").parts for path in top.rglob("*.py")]
    return sorted(".".join(parts).removesuffix(".__init__") for parts in names)


def room_of(module: str) -> str:
    """Room that a module is in; the deepest one of the plan that contains it."""
    rooms = [room for floor in FLOORS for room in floor] + [ALONE]
    inside = module.removeprefix(f"{DOOR}.")
    found = [room for room in rooms if inside == room or inside.startswith(f"{room}.")]
    return max(found, key=len) if found else module


def arrows() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Room → room that it uses → the imports, as pairs of modules."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for module in modules():
        for other in imports_of(module):
            here, there = room_of(module), room_of(other)
            if here != there:
                found[here][there].append((module, other))
    return found


def draw() -> str:
    """The plan as text: floors from the top, each room with its files, its lines, and the rooms that it uses."""
    members: dict[str, list[str]] = defaultdict(list)
    for module in modules():
        members[room_of(module)].append(module)
    used = arrows()
    rows = [f"{'room':<24}{'files':>6}{'lines':>7}  uses"]
    for floor in (*FLOORS, (ALONE,)):
        rows.append("─" * 78)
        for room in floor:
            files = [file for module in members[room] if (file := module_file(module)) is not None]
            lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
            below = [other for lower in FLOORS for other in lower if other in used[room]]
            rows += _wrapped(f"{room:<24}{len(files):>6}{lines:>7}  ", below)
    return "\n".join(rows)


def longest() -> list[tuple[int, Path]]:
    """Files by their number of lines, longest first."""
    files = [file for module in modules() if (file := module_file(module)) is not None]
    return sorted(((len(file.read_text(encoding="utf-8").splitlines()), file) for file in files), reverse=True)


def _wrapped(head: str, words: list[str], width: int = 78) -> list[str]:
    rows = [head]
    for word in words:
        if len(rows[-1]) + len(word) + 1 > width:
            rows.append(" " * len(head))
        rows[-1] += f"{word} "
    return [row.rstrip() for row in rows]


if __name__ == "__main__":
    print(draw())
