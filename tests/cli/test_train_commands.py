"""``dav2 runs`` and ``dav2 checkpoint`` on what a run leaves behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dav2 import layout
from dav2.cli import build
from dav2.training import checkpoints
from dav2.training.journal import Journal
from tests.documents import evaluation_line, run_record, step_line
from tests.training.world import settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose teacher has stopped at step 4 of 6, with one skipped update."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("params.yaml").write_text(yaml.safe_dump(settings()))
    folder = layout.training(tmp_path, "teacher")
    folder.mkdir(parents=True)
    journal = Journal(folder, active=True)
    journal.run(run_record("teacher", status="running", best_step=2))
    for step in range(1, 5):
        journal.metrics(step_line(step, None if step == 3 else 1.5, skipped_update=step == 3))
    journal.evaluation(evaluation_line(2, val_loss=0.75, da2k=0.625))
    temporary = checkpoints.begin(folder / "checkpoints", 4)
    for name in checkpoints.MODEL:
        (temporary / name).write_text(name)
    checkpoints.commit(temporary, {"step": 4})
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(build(arguments[0]), list(arguments))
    return result.exit_code, result.output


def test_runs_lists_every_run_with_its_standing(project: Path) -> None:
    code, output = run("runs")
    assert code == 0
    teacher = next(line for line in output.splitlines() if "teacher" in line)
    assert re.split("  +", teacher.strip()) == [
        "teacher", "vitn", "running, skipped 1", "4/6", "1.500", "0.750", "0.625", "2", "4"
    ]  # fmt: skip
    assert "student-n" in output and "not started" in output


def test_an_unknown_run_is_an_error_that_lists_those_there_are(project: Path) -> None:
    code, output = run("train", "teachr")
    assert code == 2
    assert "teachr" in output and "teacher, student-n, metric-near" in output


def test_checkpoint_list_checks_every_file(project: Path) -> None:
    code, output = run("checkpoint", "list", "teacher")
    assert code == 0 and "step-000004  whole" in output
    (layout.training(project, "teacher") / "checkpoints" / "step-000004" / "model.safetensors").write_text("other")
    assert "does not match its recorded hash" in run("checkpoint", "list", "teacher")[1]


def test_checkpoint_export_writes_a_model_directory(project: Path) -> None:
    folder = layout.training(project, "teacher") / "checkpoints" / "step-000004"
    code, output = run("checkpoint", "export", str(folder), "out")
    assert code == 0, output
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(checkpoints.MODEL)
    code, output = run("checkpoint", "export", "out", "again")
    assert code == 2 and "step-000100" in output
