"""A command's own mistakes are one line and exit code 2; --debug shows where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dav2.cli import Commands


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


def test_verdicts_and_wrong_options_keep_their_codes(tmp_path: Path) -> None:
    assert CliRunner().invoke(app(typer.Exit(1)), ["fail"]).exit_code == 1
    wrong = CliRunner().invoke(app(ValueError()), ["fail", "--none"])
    assert wrong.exit_code == 2 and "No such option" in wrong.stderr
