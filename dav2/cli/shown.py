"""Tables and sentences on the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.table import Table


def in_project() -> None:
    """Refuse to go on where there is no project, before anything is made there.

    Raises:
        ValueError: the working directory holds no ``params.yaml``.
    """
    if not Path("params.yaml").is_file():
        raise ValueError(
            f"{Path.cwd()} is no project folder of dav2 (it has no params.yaml): go to yours, or write the file with "
            "'dav2 scale sample'"
        )


class Listed(TyperGroup):
    """A group of commands that tells the whole line about each, where typer's own list cuts it off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        found = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
        with formatter.section("Commands"):
            formatter.write_dl([(name, (command.help or "").partition("\n")[0]) for name, command in found])


def table(title: str, columns: list[str], rows: Sequence[Sequence[object]]) -> Table:
    """Columns and rows under a title; numbers with four digits."""
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    return made


def say(*parts: object) -> None:
    """Print sentences and tables, without taking signs in them for markup."""
    from rich.console import Console

    for part in parts:
        Console().print(part, highlight=False, markup=False) if isinstance(part, str) else Console().print(part)


def folded(line: str, indent: int) -> str:
    """A line as a terminal holds it: what does not fit stands below, behind ``indent`` spaces. A pipe gets it whole."""
    if not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, indent + 20)
    lead = len(line) - len(line.lstrip())
    parts = textwrap.wrap(
        line[lead:], width, initial_indent=line[:lead], subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(parts)


def told(problems: list[str]) -> None:
    """Name what failed while the rest went on; exit code 1 if anything did."""
    for problem in problems:
        typer.echo(f"failed: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
