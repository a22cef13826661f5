"""``dav2 doctor``: this machine, what will be used of it, and what stands in the way."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dav2.doctor import Line

WIDTH, NAME = 80, 13
SIGNS = {"ok": " ", "note": "!", "stop": "✗"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine is and what will be used of it; exit code 1 if 'make repro' could not work."""
    from dav2.doctor import examine

    lines = examine(Path())
    stops = [line for line in lines if line.weight == "stop"]
    if as_json:
        print(json.dumps({"repro": not stops, "lines": [asdict(line) for line in lines]}, indent=1))
    else:
        part = ""
        for line in lines:
            if line.part != part:
                part = line.part
                print(part)
            print(_shown(line))
        print(f"make repro: {'cannot work here, see ✗' if stops else 'nothing stands in its way'}")
    if stops:
        raise typer.Exit(1)


def _shown(line: Line) -> str:
    """A finding in at most ``WIDTH`` columns, what mends it at its end."""
    text = f"{line.text} → {line.mend}" if line.mend else line.text
    head = f"{SIGNS[line.weight]} {line.name:<{NAME}} "
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=" " * (NAME + 3))
