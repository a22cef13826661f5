"""``dav2 …``: one command for each thing a person does. Commands import what they need when they run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import io
import os
import select
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from dav2 import extras
from dav2.cli.shown import Listed
from dav2.failures import named
from dav2.machine import share_cores
from dav2.training.compiling import kept

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
    "licences": "licences",
    "reproduce": "registry",
    "demo": "demo",
    "scale": "project",
    "summary": "project",
    "clean": "clean",
    "doctor": "doctor",
    "up": "project",
    "down": "project",
    "status": "project",
}


MISTAKE = 2
"""Exit code of a command that could not do what it was asked; 1 is for a verdict, such as files that failed."""
STOPPED = 130
"""Exit code of a command that Ctrl-C ended, as shells have it."""
DEBUG = "--debug"


class Commands(Listed):
    """All commands, with one boundary around them: an error is one line and exit code 2, ``--debug`` shows where.

    What a command cannot go on after it need not catch; it only says what a person can do about it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = args.index("--") if "--" in args else len(args)
        ctx.meta[DEBUG] = DEBUG in args[:own]
        return super().parse_args(ctx, [word for at, word in enumerate(args) if word != DEBUG or at > own])

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            _flush()
            return result
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            typer.echo("stopped; what was written whole stays", err=True)
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if hasattr(error, "exit_code"):
                # A wrong option or argument, which typer explains itself; it has no public name for their base.
                raise
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                # As of 'dav2 … | head': typer ends without a word.
                raise
            _drop_what_cannot_be_written()
            if ctx.meta[DEBUG]:
                traceback.print_exc()
            missing = extras.told(error) if isinstance(error, ImportError) else None
            hint = f" (run it again with {DEBUG} to see where)" if named(error).startswith("unforeseen ") else ""
            typer.echo(missing or named(error) + hint, err=True)
            raise typer.Exit(MISTAKE) from None


def _flush() -> None:
    """Write what is held back: at the end of Python nobody could be told that it cannot be written."""
    if sys.stdout:  # There is none where a shell closed it (>&-).
        sys.stdout.flush()


def _drop_what_cannot_be_written() -> None:
    """Python would fail on it once more when it ends, with another exit code."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nobody_reads() -> bool:
    """Whether standard output is the pipe that broke; where nobody can tell (Windows), it is not."""
    if not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(1, 0)
    return bool(output.poll(0))


def _empty() -> typer.Typer:
    app = typer.Typer(
        name="dav2",
        cls=Commands,
        help="The open training system for Depth Anything V2.",
        epilog=f"{DEBUG} after any command shows the whole traceback of an error.",
        no_args_is_help=True,
        add_completion=False,
        # Help in frames and colours costs as long as everything else together that a command imports.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    # With a single command typer would drop its name from the command line; a callback keeps it.
    app.callback()(_door)
    return app


def build(name: str | None = None) -> typer.Typer:
    """The command line, whole or with the one command ``name`` only."""
    app = _empty()
    chosen = {name: COMMANDS[name]} if name in COMMANDS else COMMANDS
    for command, module in chosen.items():
        file, _, attribute = module.partition(":")
        found = getattr(importlib.import_module(f"dav2.cli.{file}"), attribute or command)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command)
        else:
            app.command(command)(found)
    return app


def contents() -> typer.Typer:
    """The names of all commands with a line about each, as their sources say, and nothing that can be run.

    ``dav2 --help`` would otherwise import what every command needs, to print one line of each.
    """
    app = _empty()
    for command in COMMANDS:
        app.command(command, help=summary_of(command))(_nothing)
    return app


def _nothing() -> None:
    pass


def summary_of(command: str) -> str:
    """First line of what ``command`` does: of its function's docstring, or of its group's ``help``."""
    file, _, attribute = COMMANDS[command].partition(":")
    spec = importlib.util.find_spec(f"dav2.cli.{file}")
    assert spec is not None and spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == (attribute or command):
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            help_ = [word.value for word in node.value.keywords if word.arg == "help"]
            if named == [attribute or command] and help_ and isinstance(help_[0], ast.Constant):
                return str(help_[0].value)
    raise LookupError(f"dav2/cli/{file}.py says nothing about '{command}'")


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"dav2 {metadata.version('dav2')}")
        raise typer.Exit


def _door(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``dav2`` command."""
    share_cores()
    os.environ.update(kept())
    # Names may hold what no encoding can write; a line that says so must not be what fails.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # Pillow warns on stderr of odd metadata and of large pictures; both are judged, and told, by those who decode.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    (build(asked) if asked in COMMANDS else contents())()
