"""Nobody but the project's own commands and its owner's browser can read or start anything through the pages."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from prefect.exceptions import PrefectHTTPStatusError

from tests.conftest import PATIENCE, PrefectServer, Project


@pytest.fixture(scope="module")
def worker(project: Project, prefect_server: PrefectServer) -> Iterator[str]:
    """Identity of the deployment that a worker of the project waits to run; what ``dav2 up --worker`` printed."""
    project.run("dav2", "up", "--worker")
    yield str(prefect_server.get("deployments/name/rebuild/nightly")["id"])


FORGED = {
    "a page of another origin": {"Origin": "https://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "a foreign name for this machine": {"Host": "evil.example"},
    "a program without the string": {},
    "a program with a wrong string": {"Authorization": "Basic ZGF2Mjp4"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE", "OPTIONS"])
def test_others_are_refused_whatever_they_ask(
    prefect_server: PrefectServer, method: str, headers: dict[str, str]
) -> None:
    for path in ("admin/version", "flow_runs/filter", "deployments/filter", "csrf-token?client=x"):
        answer = httpx.request(method, f"{prefect_server.PREFECT_API_URL}/{path}", headers=headers, timeout=60)
        assert answer.status_code in (400, 401, 403, 405), answer.text
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_the_string_alone_does_not_open_the_api_to_a_foreign_page(
    prefect_server: PrefectServer, headers: dict[str, str]
) -> None:
    auth = httpx.BasicAuth(*prefect_server.PREFECT_API_AUTH_STRING.split(":"))
    answer = httpx.get(f"{prefect_server.PREFECT_API_URL}/admin/version", headers=headers, auth=auth, timeout=60)
    assert answer.status_code in (400, 403)


def test_a_request_that_changes_something_needs_a_token_too(prefect_server: PrefectServer) -> None:
    auth = httpx.BasicAuth(*prefect_server.PREFECT_API_AUTH_STRING.split(":"))
    answer = httpx.post(f"{prefect_server.PREFECT_API_URL}/flow_runs/filter", json={}, auth=auth, timeout=60)
    assert (answer.status_code, "CSRF" in answer.text) == (403, True)


def test_the_string_is_random_and_its_owners_alone(project: Project, prefect_server: PrefectServer) -> None:
    path = project.folder / ".dav2/prefect.secret"
    assert path.read_text().strip() == prefect_server.PREFECT_API_AUTH_STRING
    assert len(prefect_server.PREFECT_API_AUTH_STRING) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "variables",
    [
        {"command": "touch {mark}"},
        {"env": {"PYTHONSTARTUP": "{mark}"}},
        {"env.PATH": "{mark}"},
        {"working_dir": "{mark}"},
    ],
    ids=["command", "environment", "environment by its dotted name", "folder"],
)
def test_the_worker_takes_no_command_and_no_environment_from_a_run(
    prefect_server: PrefectServer, worker: str, variables: dict[str, object], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    text = {key: value.format(mark=mark) if isinstance(value, str) else value for key, value in variables.items()}
    with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
        prefect_server.post(f"deployments/{worker}/create_flow_run", {"job_variables": text})
    assert prefect_server.get("work_pools/dav2")["base_job_template"]["variables"]["properties"] == {}
    assert not mark.exists()


def test_the_mlflow_page_refuses_foreign_names_and_origins(project: Project, worker: str) -> None:
    page = project.run("dav2", "status").stdout.split("mlflow")[1].split()[0]
    assert httpx.get(f"{page}/health", timeout=60).status_code == 200
    ask = f"{page}/api/2.0/mlflow/experiments/search"
    assert httpx.post(ask, json={"max_results": 1}, headers={"Host": "evil.example"}, timeout=60).status_code == 403
    forged = httpx.post(ask, json={"max_results": 1}, headers={"Origin": "https://evil.example"}, timeout=60)
    assert forged.status_code == 403


ATTACK = """
async ([api, deployment]) => {
  const tried = [];
  const json = {"Content-Type": "application/json"};
  for (const [path, more] of [
    ["health", {}], ["admin/version", {}], ["csrf-token?client=x", {}],
    ["flow_runs/filter", {method: "POST", headers: json, body: "{}"}],
    ["flow_runs/filter", {method: "POST", mode: "no-cors", body: "{}"}],
    [`deployments/${deployment}/create_flow_run`, {method: "POST", headers: json, body: "{}"}],
    [`deployments/${deployment}/create_flow_run`, {method: "POST", mode: "no-cors", body: "{}"}],
  ]) {
    try {
      const answer = await fetch(`${api}/${path}`, {...more, credentials: "include"});
      tried.push(answer.type === "opaque" ? "" : await answer.text());
    } catch (error) { tried.push(""); }
  }
  return tried;
}
"""


def test_a_page_of_another_origin_reads_and_starts_nothing(
    browser: Browser, prefect_server: PrefectServer, worker: str, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<title>elsewhere</title>")
    before = prefect_server.post("flow_runs/count", {})
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{elsewhere.server_port}/index.html")
        assert set(page.evaluate(ATTACK, [prefect_server.PREFECT_API_URL, worker])) == {""}
        page.close()
        elsewhere.shutdown()
    assert prefect_server.post("flow_runs/count", {}) == before


def test_its_owner_signs_in_with_what_dav2_up_prints(
    browser: Browser, project: Project, prefect_server: PrefectServer, worker: str
) -> None:
    printed = project.run("dav2", "up").stdout
    assert prefect_server.PREFECT_API_AUTH_STRING in printed
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{prefect_server.page}/deployments")
    field = page.locator("input[type=password]").first
    field.fill(prefect_server.PREFECT_API_AUTH_STRING)
    field.press("Enter")
    page.get_by_text("nightly").first.wait_for()
    context.close()
