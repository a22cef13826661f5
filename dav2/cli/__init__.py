"""``dav2 …``: one command for each thing a person does. Commands import what they need when they run."""

from __future__ import annotations

import importlib
import sys

import typer

from dav2.machine import share_cores

# Command → file of this package, and the name there if it is a group. Only the one that is asked for is imported.
COMMANDS = {
    "predict": "predict",
    "export": "export",
    "data": "data",
    "scenes": "scenes:app",
    "train": "train",
    "runs": "train",
    "checkpoint": "train:checkpoint_app",
    "evaluate": "evaluate",
    "compare": "evaluate",
    "report": "evaluate",
    "plan": "plan",
    "promote": "registry",
    "rollback": "registry",
    "models": "registry",
    "lineage": "registry",
    "reproduce": "registry",
    "demo": "demo",
    "scale": "project",
    "summary": "project",
    "doctor": "doctor",
    "up": "project",
    "down": "project",
    "status": "project",
}


def build(name: str | None = None) -> typer.Typer:
    """The command line, whole or with the one command ``name`` only."""
    app = typer.Typer(
        name="dav2",
        help="The open training system for Depth Anything V2.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )
    chosen = {name: COMMANDS[name]} if name in COMMANDS else COMMANDS
    for command, module in chosen.items():
        file, _, attribute = module.partition(":")
        found = getattr(importlib.import_module(f"dav2.cli.{file}"), attribute or command)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command)
        else:
            app.command(command)(found)
    if len(chosen) == 1:
        # With a single command typer would drop its name from the command line; a callback keeps it.
        app.callback()(lambda: None)
    return app


def main() -> None:
    """Entry point of the ``dav2`` command."""
    share_cores()
    build(sys.argv[1] if len(sys.argv) > 1 else None)()
