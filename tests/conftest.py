"""What tests share: a clone of the project with its data, and the one Prefect server that they report to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]

# One thread for each library: tests share two cores, and results must not depend on their number.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

BROWSER = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# Files that share something made once, or that would fight for the cores, run one after the other on one worker.
TOGETHER = {"flows": "server", "test_ray.py": "ray", "test_launch.py": "ray"}
"""Folder or file → group of tests for one worker of pytest-xdist; any other file is a group of its own."""
PATIENCE = 180_000
"""Milliseconds a page may take to load on a machine that is busy with other tests."""


class Groups(LoadScopeScheduling):
    """Keeps each file, or group of files, on one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((TOGETHER[part] for part in file.split("/") if part in TOGETHER), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Who runs what where there are several workers."""
    return Groups(config, log)


LONGEST = (
    *("test_pipeline", "test_servers", "test_walks", "test_team", "test_slurm", "test_kills", "test_launch"),
    *("test_outbox", "test_access", "test_export", "test_dinov3"),
)
"""Files in the order of their time: what is long and starts last keeps everybody waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Project:
    """A clone of this repository in a temporary folder."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        binaries = str(Path(sys.executable).parent)
        own = {"PATH": f"{binaries}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(self.folder)}
        return {**os.environ, **own}

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone; its output is shown when it fails and ``check`` is set."""
        done = subprocess.run(
            command, cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
            )
        return done


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect server, and what opens it, under the names that a child process reads."""

    PREFECT_API_URL: str
    PREFECT_API_AUTH_STRING: str

    @property
    def environment(self) -> dict[str, str]:
        return asdict(self)

    @property
    def page(self) -> str:
        return self.PREFECT_API_URL.removesuffix("/api")

    def get(self, path: str) -> Any:
        """Answer to a GET."""
        return self._ask("GET", f"/{path}")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Answer to a POST."""
        return self._ask("POST", f"/{path}", json=body)

    def delete(self, path: str) -> None:
        """Delete what ``path`` names."""
        self._ask("DELETE", f"/{path}")

    def _ask(self, method: Any, path: Any, **more: Any) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        with SyncPrefectClient(self.PREFECT_API_URL, auth_string=self.PREFECT_API_AUTH_STRING) as client:
            answer = client.request(method, path, **more)
            return answer.json() if answer.content else None


def clone(folder: Path) -> Project:
    """A clone of what is committed here, with the sample data pulled from the remote in the repository."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    project = Project(folder)
    project.run("dvc", "pull", "--quiet", "data.dvc")
    return project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone with data, whose Prefect server serves the whole session; stopped at the end."""
    made = clone(tmp_path_factory.mktemp("clone") / "dav2")
    yield made
    made.run("dav2", "down")
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server(project: Project) -> PrefectServer:
    """The session's one Prefect server."""
    script = "from flows.servers import prefect_access as a; import json; print(json.dumps(a().environment))"
    started = project.run(sys.executable, "-c", script)
    return PrefectServer(**json.loads(started.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or another that is installed."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("no Chromium found; install it ('apt-get install chromium') or run the tests with .ci/run")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER, timeout=PATIENCE)
        yield browser
        browser.close()
