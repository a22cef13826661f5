"""The whole pipeline at the tiny scale, in a clone, with a real Prefect server, MLflow database, DVC and DeepSpeed."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from tests.conftest import PrefectServer, Project

# Some twenty stages are as many interpreters that import torch: ten minutes on one slow core.
pytestmark = pytest.mark.timeout(2400)

PARAMS = "params.yaml"
WAITING = ("SCHEDULED", "PENDING", "RUNNING")


def ran(output: str) -> list[str]:
    """Stages that DVC ran, or would run."""
    return re.findall(r"Running stage '([^']+)'", output)


def change(project: Project, edit: Any) -> str:
    """Edit params.yaml through ``edit(tree)``; returns the text from before."""
    path = project.folder / PARAMS
    before = path.read_text()
    tree = yaml.safe_load(before)
    edit(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return before


def test_every_stage_ran_and_left_what_it_promises(project: Project, rebuilt: str) -> None:
    left = project.folder
    for run in ("teacher", "student-vitt", "student-vitn", "metric-indoor", "marigold-diffusion"):
        assert (left / "artifacts/models" / run / "model.safetensors").is_file()
        assert json.loads((left / "artifacts/scores" / f"{run}.json").read_text())["model"] == run
    for group in ("synthetic", "unlabelled", "benchmark", "pseudo"):
        assert json.loads((left / "artifacts/quality" / group / "result.json").read_text())["passed"]
        assert (left / "artifacts/quality" / group / "docs/index.html").is_file()
    assert len(json.loads((left / "artifacts/registered.json").read_text())["models"]) == 5


def test_the_killed_teacher_went_on_from_its_checkpoint(project: Project, rebuilt: str) -> None:
    assert "ingest@hypersim" not in ran(rebuilt), "what was whole before the kill must not run again"
    assert "teacher" in ran(rebuilt)
    lines = (project.folder / "artifacts/training/teacher/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps)), "no step may be trained or recorded twice"


def test_a_second_repro_runs_nothing(project: Project, rebuilt: str) -> None:
    assert ran(project.run("dvc", "repro").stdout) == []


def test_a_gate_that_judges_the_same_data_again_is_no_news_to_dvc(project: Project, rebuilt: str) -> None:
    lock = (project.folder / "dvc.lock").read_bytes()
    again = project.run("dvc", "repro", "--force", "--single-item", "validate@benchmark")
    assert ran(again.stdout) == ["validate@benchmark"]
    assert (project.folder / "dvc.lock").read_bytes() == lock, "its pages count among what it wrote"


def test_scores_are_dvc_metrics_with_the_trivial_baselines(project: Project, rebuilt: str) -> None:
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    rows = shown[""]["data"]
    scores = {Path(path).stem: row["data"]["da2k"] for path, row in rows.items() if "da2k" in row["data"]}
    assert {"baseline-constant", "baseline-row", "baseline-brightness", "teacher", "student-vitt"} <= set(scores)
    assert scores["baseline-constant"]["accuracy"] == 0.0, "ties are wrong"
    assert all(0.0 <= value["low"] <= value["accuracy"] <= value["high"] <= 1.0 for value in scores.values())


def test_plots_can_be_shown(project: Project, rebuilt: str) -> None:
    project.run("dvc", "plots", "show", "--out", "plots")
    assert "vega" in (project.folder / "plots/index.html").read_text()


def test_the_report_needs_nothing_from_outside(project: Project, rebuilt: str) -> None:
    page = (project.folder / "reports/index.html").read_text()
    assert "student-vitt" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["']https?://[^"']+\.(?:js|css|png|jpg|woff2?)""", page)


def test_every_stage_is_a_finished_flow_on_the_server(
    project: Project, rebuilt: str, prefect_server: PrefectServer
) -> None:
    runs = prefect_server.post("flow_runs/filter", {"limit": 200})
    finished = {run["name"] for run in runs if run["state_type"] == "COMPLETED"}
    assert {"ingest@hypersim", "benchmark@da2k", "validate@pseudo", "teacher", "pseudo_label", "student@vitn",
            "metric@indoor", "codec@patch", "marigold@diffusion", "evaluate@teacher", "baselines", "report",
            "register"} <= finished  # fmt: skip
    artifacts = {artifact["key"] for artifact in prefect_server.post("artifacts/filter", {"limit": 200})}
    assert {"gate-synthetic", "preview-teacher", "da2k-student-vitt", "da2k"} <= artifacts


def test_models_are_registered_with_their_lineage(project: Project, rebuilt: str) -> None:
    with sqlite3.connect(project.folder / ".dav2/mlflow.db") as database:
        names = {row[0] for row in database.execute("select name from model_versions")}
        tags = dict(database.execute("select key, value from model_version_tags where name = 'dav2-student-vitt'"))
        checkpoints = database.execute("select count(*) from logged_models").fetchone()[0]
    students = {"dav2-student-vitt", "dav2-student-vitn"}
    assert names == {"dav2-teacher", *students, "dav2-metric-indoor-vitt", "dav2-marigold-diffusion-tiny"}
    assert any("git" in key for key in tags)
    assert "parent.teacher" in tags, "a student names its teacher"
    assert checkpoints >= 4


def test_a_student_setting_makes_nothing_before_the_student_stale(project: Project, rebuilt: str) -> None:
    before = change(project, lambda tree: tree["students"]["vitn"].update(steps=3))
    try:
        would = ran(project.run("dvc", "repro", "--dry").stdout)
    finally:
        (project.folder / PARAMS).write_text(before)
    assert would[:2] == ["settings", "student@vitn"]
    assert not {"teacher", "pseudo_label", "student@vitt", "metric@indoor"} & set(would)


def test_an_experiment_changes_one_setting_beside_the_project_and_is_compared(
    project: Project, rebuilt: str, tmp_path: Path
) -> None:
    def recorded() -> int:
        with sqlite3.connect(project.folder / ".dav2/mlflow.db") as database:
            return int(database.execute("select count(*) from runs").fetchone()[0])

    files = [project.folder / name for name in (PARAMS, "dvc.lock", "artifacts/scores/student-vitn.json")]
    before, runs = [path.read_bytes() for path in files], recorded()
    changed = ("--set-param", "students.vitn.optim.encoder_lr=0.02")
    project.run("dvc", "exp", "run", "--temp", "--name", "faster", *changed, "evaluate@student-vitn")
    assert [path.read_bytes() for path in files] == before, "it ran in a copy"
    compared = project.run("dav2", "compare", "student-vitn", "student-vitn@faster").stdout
    assert "student-vitn@faster against student-vitn" in compared and "da2k" in compared
    there = tmp_path / "there.json"
    project.run("dvc", "get", ".", "artifacts/scores/student-vitn.json", "--rev", "faster", "--out", str(there))
    assert json.loads(there.read_text())["weights_sha256"] != json.loads(before[2])["weights_sha256"]
    assert recorded() > runs, "its training stands in the project's MLflow"
    copies = project.folder / ".dvc/tmp/exps"
    left = [each.pid for each in psutil.process_iter(["cwd"]) if str(copies) in (each.info["cwd"] or "")]
    assert not left, "no server of the copy stays behind"
    unknown = project.run("dav2", "compare", "student-vitn", "student-vitn@slower", check=False)
    assert unknown.returncode == 2 and "no commit, branch, tag or experiment 'slower'" in unknown.stderr
    project.run("dvc", "exp", "remove", "faster")


def test_a_student_can_learn_from_a_selection_of_the_labels(project: Project, rebuilt: str) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["selections"] = {"few": {"sources": ["photos", "views"], "budget": 12}}
        tree["students"]["vitn"]["labels"] = "selections/few"

    before = change(project, edit)
    try:
        assert ran(project.run("dvc", "repro", "select@few").stdout) == ["settings", "select@few"]
        counts = [
            len(pd.read_parquet(project.folder / f"artifacts/selections/few/{source}/manifest.parquet"))
            for source in ("photos", "views")
        ]
        would = ran(project.run("dvc", "repro", "--dry", "student@vitn").stdout)
        unknown = project.run(sys.executable, "-m", "flows.select", "--name", "many", check=False)
    finally:
        (project.folder / PARAMS).write_text(before)
        project.run("git", "checkout", "dvc.lock")
    assert sum(counts) == 12 and min(counts) > 0
    assert would == ["student@vitn"]
    assert unknown.returncode != 0 and "no selection named 'many'; there are: few" in unknown.stderr


def test_a_failing_gate_stops_the_pipeline_and_names_the_setting(project: Project, rebuilt: str) -> None:
    before = change(project, lambda tree: tree["quality"]["synthetic"].update(min_frames=100000))
    try:
        failed = project.run("dvc", "repro", "validate@synthetic", check=False)
    finally:
        (project.folder / PARAMS).write_text(before)
    assert failed.returncode != 0
    assert "the gate for synthetic data failed" in failed.stdout + failed.stderr
    assert "min_frames" in failed.stdout + failed.stderr
    project.run("dvc", "repro", "validate@synthetic")


def test_an_unknown_key_stops_a_stage_before_it_starts(project: Project, rebuilt: str) -> None:
    before = change(project, lambda tree: tree["teacher"].update(stepz=3))
    try:
        failed = project.run(sys.executable, "-m", "flows.train", "--run", "teacher", check=False)
    finally:
        (project.folder / PARAMS).write_text(before)
    assert failed.returncode != 0
    assert "unknown key 'teacher.stepz'; allowed here: family, size, sources, steps" in failed.stderr


def test_data_that_was_not_pulled_is_named_with_the_command(project: Project, rebuilt: str, tmp_path: Path) -> None:
    source = project.folder / "data/vkitti2"
    source.rename(tmp_path / "vkitti2")
    try:
        failed = project.run(sys.executable, "-m", "flows.ingest", "--source", "vkitti2", check=False)
    finally:
        (tmp_path / "vkitti2").rename(source)
    assert failed.returncode != 0
    assert "data/vkitti2" in failed.stderr and "dvc pull" in failed.stderr


def test_a_rebuild_takes_every_stage_parents_first(project: Project, rebuilt: str) -> None:
    program = "from flows.rebuild import stages; print(*stages(), sep='\\n')"
    order = project.run(sys.executable, "-c", program).stdout.split()
    assert sorted(order) == sorted(project.run("dvc", "stage", "list", "--name-only").stdout.split())
    for parent, child in [("benchmark@da2k", "validate@benchmark"), ("validate@synthetic", "teacher"),
                          ("teacher", "pseudo_label"), ("validate@pseudo", "student@vitt")]:  # fmt: skip
        assert order.index(parent) < order.index(child)


def test_the_rebuild_flow_walks_what_a_stage_needs(
    project: Project, rebuilt: str, prefect_server: PrefectServer
) -> None:
    project.run(sys.executable, "-m", "flows.rebuild", "validate@benchmark")
    walk = prefect_server.post("flow_runs/filter", {"flows": {"name": {"any_": ["rebuild"]}}})[0]
    assert walk["state_type"] == "COMPLETED"
    body = {"task_runs": {"flow_run_id": {"any_": [walk["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    order = [task["name"] for task in prefect_server.post("task_runs/filter", body)]
    assert order[-1] == "validate@benchmark"
    assert order[0] == "settings"
    assert sorted(order[1:-1]) == [f"benchmark@{name}" for name in ("da2k", "nyu")]


def test_a_rebuild_can_be_started_from_the_page_and_its_schedule_waits(
    project: Project, rebuilt: str, prefect_server: PrefectServer
) -> None:
    pages = project.run("dav2", "up", "--worker").stdout
    assert prefect_server.page in pages, "the server that runs already is used"
    mlflow = re.search(r"MLflow\s+(http://127\.0\.0\.1:\d+)", pages)
    assert mlflow
    with urllib.request.urlopen(f"{mlflow[1]}/health") as answer:
        assert answer.status == 200
    deployment = prefect_server.get("deployments/name/rebuild/nightly")
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False], "paused until switched on"
    body = {"parameters": {"targets": ["benchmark@nyu"]}, "state": {"type": "SCHEDULED"}}
    started = prefect_server.post(f"deployments/{deployment['id']}/create_flow_run", body)
    deadline = time.monotonic() + 300
    while (state := prefect_server.get(f"flow_runs/{started['id']}")["state_type"]) in WAITING:
        assert time.monotonic() < deadline, f"the run is still {state}"
        time.sleep(1)
    assert state == "COMPLETED"
