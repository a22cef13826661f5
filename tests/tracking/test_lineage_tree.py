from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from dav2.cli import build
from dav2.code_state import git_state
from dav2.params import Params
from dav2.tracking import promotion, registry, store, tree, verify
from tests.tracking import builders


@pytest.fixture
def registered(project: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Teacher, student and metric model in the registry; commands run in the project's folder."""
    raw = project / params.sources["photos"].path
    (raw / "sub").mkdir(parents=True)
    (raw / "b.jpg").write_text("b")
    (raw / "sub/a.jpg").write_text("a")
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["ingest@photos"]["deps"][0]["md5"] = verify.dvc_hash(raw)
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qam", "lock"], cwd=project, check=True
    )
    for run in ("teacher", "student-vitt", "metric-indoor"):
        builders.write_record(project, params, run)
        registry.register(run, project, params, builders.scores(project, run, 0.8))
    monkeypatch.chdir(project)
    return project


def run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(build(arguments[0]), list(arguments))
    if outcome.exception and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.output


def test_the_tree_leads_from_a_metric_model_to_raw_data(registered: Path) -> None:
    code, text = run("lineage", "dav2-metric-indoor-vitt")
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("model dav2-metric-indoor-vitt version 1  (weights ")
    student = next(index for index, line in enumerate(lines) if "model dav2-student-vitt version 1" in line)
    teacher = next(index for index, line in enumerate(lines) if "model dav2-teacher version 1" in line)
    labels = next(index for index, line in enumerate(lines) if "labels photos" in line)
    assert student < labels < teacher
    assert any("data hypersim" in line and "raw md5-of-data/hypersim.dir" in line for line in lines[teacher:])
    assert sum("clean" in line for line in lines) == 3


def test_json_holds_whole_hashes_and_the_picture_every_node(registered: Path) -> None:
    data = json.loads(run("lineage", "dav2-student-vitt", "--json")[1])
    assert len(data["facts"]["weights"]) == 64
    assert run("lineage", "dav2-student-vitt", "--picture", "tree.svg")[0] == 0
    picture = ElementTree.parse(registered / "tree.svg")
    names = [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    api = store.client(registered)
    node = tree.tree_of(api, registry.resolve(api, "dav2-student-vitt"))
    assert names == [line.lstrip("│├└─ ") for line in tree.as_text(node).splitlines()]


def test_verify_passes_then_names_what_was_changed(registered: Path, params: Params) -> None:
    code, text = run("lineage", "verify", "dav2-student-vitt")
    assert code == 0, text
    assert "same     raw data of photos" in text and "0 no longer match" in text
    (registered / params.sources["photos"].path / "b.jpg").write_text("changed")
    (registered / params.labels("views") / "manifest.parquet").write_text("changed")
    code, text = run("lineage", "verify", "dav2-student-vitt")
    assert code == 1
    assert "differs  raw data of photos" in text and "differs  label manifest of views" in text
    assert "2 no longer match" in text


def test_the_folder_hash_is_that_of_dvc(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a/b.txt", "a-b"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name * 3)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for command in (["init", "-q"], ["config", "core.analytics", "false"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    recorded = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]["md5"]
    assert verify.dvc_hash(tmp_path / "data") == recorded


def test_reproduce_lays_out_code_settings_and_hashes(registered: Path, tmp_path: Path) -> None:
    (registered / "params.yaml").write_text("scale: other\n")
    folder = tmp_path / "again"
    code, text = run("reproduce", "dav2-student-vitt/1", "--into", str(folder))
    assert code == 0, text
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    assert head.stdout.strip() == git_state(registered)["commit"]
    assert "scale: sample" in (folder / "params.yaml").read_text()
    assert (folder / "dvc.lock").read_text() == (registered / "dvc.lock").read_text()
    assert "dvc repro student@vitt" in text
    code, text = run("reproduce", "dav2-student-vitt/1", "--into", str(folder))
    assert code == 2 and "exists; name another folder" in text


def test_the_commands_print_gates_versions_and_refusals(registered: Path, params: Params) -> None:
    code, text = run("promote", "dav2-student-vitt")
    assert code == 0, text
    assert "passed  over trivial baselines" in text and "promoted: version 1 is the champion" in text
    assert run("promote", "dav2-student-vitt") == (2, "dav2-student-vitt version 1 is the champion already\n")
    builders.write_run(registered, params, "student-vitt", seed=7)
    registry.register("student-vitt", registered, params, builders.scores(registered, "student-vitt", 0.55))
    code, text = run("promote", "dav2-student-vitt")
    assert code == 1 and "FAILED  DA-2K against champion" in text and "not promoted: 3 gate(s) failed" in text
    code, text = run("promote", "dav2-student-vitt", "--force", "--reason", "a test")
    assert code == 0 and "promoted by force: version 2 is the champion (a test)" in text
    code, text = run("rollback", "dav2-student-vitt")
    assert text == "dav2-student-vitt: version 1 is the champion again, version 2 was rolled back\n"
    code, text = run("models")
    assert code == 0 and "champion" in text and "dav2-metric" in text
    actions = [entry["action"] for entry in promotion.history(store.client(), "dav2-student-vitt")]
    assert actions == ["promoted", "refused", "forced", "rolled back"]


def test_an_unknown_model_is_one_line_and_no_traceback(registered: Path) -> None:
    assert run("lineage", "dav2-nothing") == (
        2,
        "no registered model answers to 'dav2-nothing'; 'dav2 models' lists them\n",
    )
