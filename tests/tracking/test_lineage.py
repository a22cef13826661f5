from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from dav2.code_state import git_state
from dav2.params import Params
from dav2.tracking import lineage
from dav2.tracking.store import TrackingError
from tests.documents import run_record


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_student_knows_its_photographs_labels_and_teacher(project: Path, params: Params) -> None:
    found = lineage.collect("student-vitt", project, params)
    teacher = sha256(project / "artifacts/models/teacher/model.safetensors")
    assert found.parents == [{"run": "teacher", "role": "teacher", "weights_sha256": teacher}]
    assert found.data["photos"] == {
        "raw": "md5-of-data/photos.dir",
        "shards": f"md5-of-{params.shards('photos')}.dir",
        "manifest": sha256(project / params.shards("photos") / "manifest.parquet"),
    }
    assert found.labels["views"]["teacher"] == teacher
    assert found.labels["views"]["shards"] == "md5-of-artifacts/pseudo.dir"
    assert found.parameters["recipe"]["steps"] == params.students["vitt"].steps


def test_a_metric_model_descends_from_its_student(project: Path, params: Params) -> None:
    found = lineage.collect("metric-indoor", project, params)
    assert [parent["run"] for parent in found.parents] == ["student-vitt"]
    assert set(found.data) == set(params.metric["indoor"].sources)
    assert not found.labels


def test_the_document_survives_being_written_and_read(project: Path, params: Params) -> None:
    found = lineage.collect("teacher", project, params)
    assert lineage.Lineage.from_json(found.to_json()) == found


def test_a_receipt_written_elsewhere_gives_the_same_digest(project: Path, params: Params) -> None:
    before = lineage.collect("student-vitt", project, params).labels["views"]["receipts"]
    path = project / params.labels("views") / "train-000000.receipt.json"
    receipt = json.loads(path.read_text())
    path.write_text(json.dumps({**receipt, "run": {"host": "another", "seconds": 9}}))
    assert lineage.collect("student-vitt", project, params).labels["views"]["receipts"] == before
    path.write_text(json.dumps({**receipt, "teacher": "0" * 64}))
    assert lineage.collect("student-vitt", project, params).labels["views"]["receipts"] != before


def test_code_is_the_commit_and_which_tracked_files_differ(project: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True)
    assert git_state(project) == {"commit": head.stdout.strip(), "dirty": False, "changed": []}
    tracked = subprocess.run(["git", "ls-files", "dvc.lock"], cwd=project, capture_output=True, text=True, check=True)
    assert tracked.stdout.strip() == "dvc.lock"
    (project / "dvc.lock").write_text("stages: {}\n")  # as a run of the pipeline does
    assert not git_state(project)["dirty"]
    (project / "params.yaml").write_text("changed: true\n")
    (project / "untracked.txt").write_text("x")
    state = git_state(project)
    assert state["dirty"] and state["changed"] == ["params.yaml"]


def test_what_is_edited_while_a_run_trains_is_not_credited_with_its_weights(project: Path, params: Params) -> None:
    # As the run wrote it when it started; since then the settings and the code changed.
    code = {"commit": "c" * 40, "dirty": False, "changed": []}
    recipe = {**params.students["vitt"].model_dump(mode="json"), "steps": 77}
    record = project / "artifacts/training/student-vitt/run.json"
    run_record("student-vitt", code=code, seed=11, settings=recipe, precision="bf16").write(record)
    found = lineage.collect("student-vitt", project, params)
    assert found.code == code
    assert (found.parameters["seed"], found.parameters["recipe"]["steps"]) == (11, 77)
    assert found.machine == {"precision": "bf16", "precision_why": "asked for", "machine": {}}


def test_a_folder_without_git_is_said_to_be_one(tmp_path: Path) -> None:
    assert "not a git repository" in git_state(tmp_path)["unknown"]


def test_a_machine_without_git_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == {"unknown": "git is not installed"}


def test_what_a_stage_wrote_counts_more_than_what_a_later_one_found(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(
        "stages: {b: {deps: [{path: x, md5: stale}]}, a: {outs: [{path: x, md5: fresh}]}}"
    )
    assert lineage.read_dvc_lock(tmp_path) == {"x": "fresh"}


def test_a_damaged_lock_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("stages: [")
    with pytest.raises(TrackingError, match=r"dvc\.lock cannot be read"):
        lineage.read_dvc_lock(tmp_path)


def test_a_model_that_is_not_there_says_what_makes_it(project: Path, params: Params) -> None:
    with pytest.raises(TrackingError, match="'dvc repro', which trains 'student-vitn'"):
        lineage.collect("student-vitn", project, params)
