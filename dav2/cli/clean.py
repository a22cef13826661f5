"""The command that makes room: what is not needed any more, by rule, first listed and then removed."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer


def clean(
    older_than: Annotated[float, typer.Option(min=0.0, help="Days; younger logs and checkpoints stay.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed; without it nothing is.")] = False,
    everything: Annotated[bool, typer.Option("--list", help="Name every file and checkpoint.")] = False,
) -> None:
    """List, or with --yes remove, what no registered version and no run of params.yaml needs."""
    from dav2.cli.registry import told
    from dav2.params import load
    from dav2.tracking import retention

    with told():
        found, remarks = retention.plan(Path(), load(), older_than)
        sums: dict[str, list[int]] = defaultdict(list)
        for removal in found:
            sums[removal.rule].append(removal.size)
            if everything or not removal.size:
                typer.echo(f"  {removal.rule}: {removal.what}")
        for rule, sizes in sums.items():
            typer.echo(f"{rule}: {len(sizes)}, {sum(sizes) / 1e6:.1f} MB")
        for remark in remarks:
            typer.echo(remark)
        if not found:
            typer.echo("nothing to remove")
        elif not yes:
            typer.echo("nothing was removed; 'dav2 clean --yes' removes this")
        else:
            for removal in found:
                removal.remove()
            typer.echo("removed")
