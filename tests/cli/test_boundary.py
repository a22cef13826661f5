"""A command's own mistakes are one line and exit code 2; --debug shows where they come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dav2.cli import Commands
from tests.conftest import ROOT


def app(error: BaseException) -> typer.Typer:
    application = typer.Typer(cls=Commands)

    @application.command()
    def fail() -> None:
        raise error

    application.callback()(lambda: None)
    return application


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("params.yaml: seed must be a number"), "params.yaml: seed must be a number"),
        (FileNotFoundError(2, "No such file or directory", "x.json"), "x.json: no such file"),
        (PermissionError(13, "Permission denied", "/proc/x"), "/proc/x: Permission denied"),
        (OSError(28, "No space left on device", "out"), "out: No space left on device"),
        (KeyError("loss"), "unforeseen KeyError: 'loss' (run it again with --debug to see where)"),
        (RecursionError(), "unforeseen RecursionError (run it again with --debug to see where)"),
        (MemoryError(), "not enough memory for it"),
    ],
)
def test_an_error_is_one_line(error: BaseException, line: str) -> None:
    result = CliRunner().invoke(app(error), ["fail"])
    assert result.exit_code == 2 and result.stderr == f"{line}\n"


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str]) -> None:
    result = CliRunner().invoke(app(KeyError("loss")), arguments)
    assert result.exit_code == 2 and "Traceback" in result.stderr and "test_boundary.py" in result.stderr


@pytest.mark.parametrize("way", ["full", "gone", "closed"])
def test_what_cannot_be_printed_is_said_or_ends_quietly(way: str) -> None:
    reads, gone = os.pipe()
    os.close(reads)
    full = os.open("/dev/full", os.O_WRONLY)
    program = "import typer; from dav2.cli import Commands; app = typer.Typer(cls=Commands)\n"
    program += "app.callback()(lambda: None); app.command()(lambda: print('held back' * 9999)); app()"
    command = [sys.executable, "-c", program, "<lambda>"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {">&-" if way == "closed" else ""}', "sh", *command],
        stdout={"full": full, "gone": gone, "closed": None}[way], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    for end in (gone, full):
        os.close(end)
    assert (done.returncode, done.stderr) == {
        "full": (2, "No space left on device\n"), "gone": (1, ""), "closed": (0, "")
    }[way]  # fmt: skip


def test_verdicts_and_wrong_options_keep_their_codes(tmp_path: Path) -> None:
    assert CliRunner().invoke(app(typer.Exit(1)), ["fail"]).exit_code == 1
    wrong = CliRunner().invoke(app(ValueError()), ["fail", "--none"])
    assert wrong.exit_code == 2 and "No such option" in wrong.stderr
