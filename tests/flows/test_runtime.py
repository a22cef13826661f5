"""What stages show on the Prefect page, whatever a person calls their data."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.actions import ArtifactCreate

from flows.access import Access
from flows.documents import prefix
from flows.page import artifact_key
from flows.worker import register
from tests.conftest import PrefectServer, Project


@pytest.mark.parametrize("name", ["ingest-my_photos", "ingest-Kitchen", "da2k-models--x", "labels-_a.b c", "__", "é"])
def test_any_name_becomes_a_key_that_prefect_takes(name: str) -> None:
    assert ArtifactCreate(key=artifact_key(name)).key


def test_names_that_are_keys_stay() -> None:
    assert artifact_key("checkpoints-student-vitt") == "checkpoints-student-vitt"


def test_a_stage_that_cannot_write_says_where_and_why_without_a_traceback(
    project: Project, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_bytes((project.folder / "params.yaml").read_bytes())
    (tmp_path / "artifacts").write_text("a file where a folder should be")
    environment = {**project.environment, **prefect_server.environment}
    command = [sys.executable, "-m", "flows.settings"]
    failed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stdout + failed.stderr
    assert [line for line in failed.stderr.splitlines() if line.startswith("settings: artifacts")]


def test_a_rebuild_holds_its_stages_and_says_why_they_ran(project: Project, prefect_server: PrefectServer) -> None:
    params, lock = project.folder / "params.yaml", project.folder / "dvc.lock"
    before = params.read_bytes(), lock.read_bytes()
    params.write_bytes(before[0] + b"# changed\n")
    try:
        project.run(sys.executable, "-m", "flows.rebuild", "settings", **prefect_server.environment)
    finally:
        params.write_bytes(before[0])
        lock.write_bytes(before[1])
    newest = {"flows": {"name": {"any_": ["rebuild"]}}, "sort": "START_TIME_DESC"}
    walk = prefect_server.post("flow_runs/filter", newest)[0]
    inside = prefect_server.post("flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [walk["id"]]}}})
    assert [(run["name"], run["state_type"]) for run in inside] == [("settings", "COMPLETED")]
    body = {"flow_runs": {"id": {"any_": [walk["id"]]}}}
    tables = {each["key"]: json.loads(each["data"]) for each in prefect_server.post("artifacts/filter", body)}
    assert [row["stage"] for row in tables["rebuild-why"]] == ["settings"]
    assert "params.yaml modified" in tables["rebuild-why"][0]["stale because of"]
    assert [(row["stage"], row["ran"]) for row in tables["rebuild"]] == [("settings", True)]


def test_the_report_is_served_to_who_knows_the_string_alone(project: Project, prefect_server: PrefectServer) -> None:
    page = project.folder / "reports/seen.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("the report")
    place = f"{prefect_server.page}{prefix(prefect_server.PREFECT_API_AUTH_STRING)}"
    answer = httpx.get(f"{place}/reports/seen.html", timeout=60)
    page.unlink()
    assert answer.text == "the report" and "sandbox" in answer.headers["content-security-policy"]
    assert httpx.get(f"{place}/reports/seen.html", timeout=60).status_code == 404
    other = f"{prefect_server.page}{prefix('dav2:guessed')}/reports/seen.html"
    assert httpx.get(other, timeout=60).text != "the report"
    assert httpx.get(f"{place}/.dav2/prefect.secret", timeout=60).status_code == 404


def test_a_schedule_that_is_switched_on_makes_runs_appear(
    project: Project, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PYTHONPATH", str(project.folder))
    register(Access(prefect_server.PREFECT_API_URL, prefect_server.PREFECT_API_AUTH_STRING))
    deployment = prefect_server.get("deployments/name/rebuild/nightly")["id"]
    every_minute = [{"schedule": {"cron": "* * * * *"}, "active": True}]
    made = prefect_server.post(f"deployments/{deployment}/schedules", every_minute)
    try:
        deadline, body = time.monotonic() + 150, {"deployments": {"id": {"any_": [deployment]}}}
        while not (found := [run for run in prefect_server.post("flow_runs/filter", body) if run["auto_scheduled"]]):
            assert time.monotonic() < deadline, "no run was scheduled"
            time.sleep(1)
        assert found[0]["state_type"] == "SCHEDULED"
    finally:
        prefect_server.delete(f"deployments/{deployment}/schedules/{made[0]['id']}")
        for run in prefect_server.post("flow_runs/filter", body):
            prefect_server.delete(f"flow_runs/{run['id']}")
