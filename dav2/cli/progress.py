"""What a command shows that works for longer than a few seconds: how much is done, how fast, how long still.

On a terminal it is a bar that goes away at the end; in a log a line every few seconds, on stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Progress = Callable[[int, int], None]
"""Called with how many are done, of how many."""
EVERY = 5.0
"""Seconds between two lines in a log."""


@contextmanager
def progress(what: str, unit: str) -> Iterator[Progress]:
    """Show the progress of ``what``, counted in ``unit``."""
    if not sys.stderr.isatty():
        yield lines(what, unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task, begun = bar.add_task(what, total=None, rate=unit), time.monotonic()

        def show(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - begun, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{unit}, {rate:.1f}/s")

        yield show


def lines(what: str, unit: str, every: float = EVERY) -> Progress:
    """Progress as lines: ``what: 12/40 images, 3.1/s, 9 s left``; the first after ``every`` seconds."""
    begun = said = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < every:
            return
        said = now
        rate = done / (now - begun)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        typer.echo(f"{what}: {done}/{total} {unit}, {rate:.2g}/s{left}", err=True)

    return show


@contextmanager
def step(what: str, logged: bool = True) -> Iterator[None]:
    """Say what is being done now, where nothing can be counted, and on a terminal for how long.

    Args:
        what: is done.
        logged: also say it where no terminal is; what takes seconds alone is no news to a log.
    """
    if not sys.stderr.isatty():
        if logged:
            typer.echo(f"{what} …", err=True)
        yield
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        yield
