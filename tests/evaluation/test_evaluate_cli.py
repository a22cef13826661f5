"""``dav2 evaluate``, ``compare`` and ``report`` as a person uses them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dav2.cli import build
from dav2.documents import ScoreFile
from tests.evaluation.conftest import tiny_params


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tiny_params().model_dump(mode="json", by_alias=True)))
    return path


def _run(command: str, *arguments: str | Path) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(build(command), [command, *map(str, arguments)])
    return result.exit_code, result.output


def test_a_model_directory_is_scored_on_one_benchmark(project: Path, settings: Path) -> None:
    code, output = _run(
        "evaluate", "artifacts/models/teacher", "--benchmark", "nyu", "--params", settings, "--root", project
    )
    assert code == 0, output
    assert "da-v2-nyu" in output
    scores = ScoreFile.read(project / "artifacts" / "scores" / "teacher.json")
    assert list(scores.benchmarks) == ["nyu"]
    assert scores.da2k is None


def test_a_wrong_model_is_one_clear_line(project: Path, settings: Path) -> None:
    code, output = _run("evaluate", "nobody", "--params", settings, "--root", project)
    assert code == 2
    assert output.strip().startswith("nobody: no model 'nobody'")
    assert "Traceback" not in output


def test_models_are_compared_with_the_first_one(scored: Path) -> None:
    code, output = _run("compare", "baseline-row", "baseline-constant", "teacher", "--root", scored)
    assert code == 0, output
    assert "baseline-constant against baseline-row" in output and "teacher against baseline-row" in output
    assert "worse" in output
    code, output = _run("compare", "baseline-row", "--root", scored)
    assert (code, output.strip()) == (2, "compare needs at least two models")


def test_a_comparison_fits_a_terminal_of_80_columns(scored: Path) -> None:
    command = ["compare", "baseline-row", "teacher", "--root", str(scored)]
    lines = CliRunner(env={"COLUMNS": "80"}).invoke(build("compare"), command).output.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert re.search(r" -?\d\.\d{3}…-?\d\.\d{3} +\d\.\d{3} +(open|better|worse)", "\n".join(lines))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("teacher@HEAD", "is no project of git and DVC, so there is no @HEAD in it"),
        ("@HEAD", "expected RUN@REVISION"),
        ("teacher@", "expected RUN@REVISION"),
        ("nobody", "is missing"),
    ],
)
def test_scores_that_are_not_there_are_one_clear_line(scored: Path, name: str, told: str) -> None:
    code, output = _run("compare", "baseline-row", name, "--root", scored)
    assert code == 2 and told in output and len(output.strip().splitlines()) == 1


def test_the_report_is_written_where_asked(scored: Path, settings: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    code, output = _run("report", "--params", settings, "--root", scored, "--out", out)
    assert code == 0 and output.strip().splitlines()[-1] == f"wrote {out / 'index.html'}", output
    assert (out / "index.html").is_file()
