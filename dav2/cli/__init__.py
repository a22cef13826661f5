"""``dav2 …``: one command for each thing a person does. Commands import what they need when they run."""

from __future__ import annotations

import importlib
import sys
import traceback
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from dav2.failures import reason
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


MISTAKE = 2
"""Exit code of a command that could not do what it was asked; 1 is for a verdict, such as files that failed."""
DEBUG = "--debug"


class Commands(TyperGroup):
    """All commands, with one boundary around them: an error is one line and exit code 2, ``--debug`` shows where.

    What a command cannot go on after it need not catch; it only says what a person can do about it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = args.index("--") if "--" in args else len(args)
        ctx.meta[DEBUG] = DEBUG in args[:own]
        return super().parse_args(ctx, [word for at, word in enumerate(args) if word != DEBUG or at > own])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):
                # A wrong option or argument, which typer explains itself; it has no public name for their base.
                raise
            if ctx.meta[DEBUG]:
                traceback.print_exc()
            typer.echo(_named(error), err=True)
            raise typer.Exit(MISTAKE) from None


def _named(error: Exception) -> str:
    """The error as a line that says which file it is about, where the error knows."""
    file = getattr(error, "filename", None)
    text = reason(error)
    if file is not None and not text.startswith(f"{file}:"):
        text = f"{file}: {text}"
    unforeseen = text.startswith("unforeseen ")
    return f"{text} (run it again with {DEBUG} to see where)" if unforeseen else text


def build(name: str | None = None) -> typer.Typer:
    """The command line, whole or with the one command ``name`` only."""
    app = typer.Typer(
        name="dav2",
        cls=Commands,
        help="The open training system for Depth Anything V2.",
        epilog=f"{DEBUG} after any command shows the whole traceback of an error.",
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
    # Pillow warns on stderr of odd metadata and of large pictures; both are judged, and told, by those who decode.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    build(sys.argv[1] if len(sys.argv) > 1 else None)()
