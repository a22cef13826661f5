"""The worker that runs the deployments of ``infra/prefect.yaml``: a process of this folder, with this folder's code.

Its pool (``infra/work-pool.json``) has no variables: a run can name parameters of a flow, but neither a command nor an
environment nor a folder, which Prefect's own template would take from whoever starts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from flows import processes
from flows.access import Access
from flows.processes import Server, ServerError

WORK_POOL = "dav2"
TEMPLATE = "infra/work-pool.json"
DEPLOYMENTS = "infra/prefect.yaml"
PREFECT = str(Path(sys.executable).with_name("prefect"))


def register(access: Access) -> None:
    """Register pool and deployments.

    Raises:
        ServerError: Prefect refuses; the message ends with what it said.
    """
    environment = {**os.environ, **_environment(access)}
    for arguments in (
        ["work-pool", "create", "--type", "process", "--base-job-template", TEMPLATE, "--overwrite", WORK_POOL],
        ["--no-prompt", "deploy", "--all", "--prefect-file", DEPLOYMENTS],
    ):
        done = subprocess.run([PREFECT, *arguments], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ServerError(f"'prefect {' '.join(arguments)}' failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def start_worker(access: Access) -> Server:
    """Register pool and deployments, and start the worker if it does not run.

    Raises:
        ServerError: Prefect refuses; the message ends with what it said.
    """
    register(access)
    with processes.lock("worker"):
        worker = processes.running("worker")
        if worker is None:
            port = processes.free_port(8080)
            web = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": str(port)}
            command = [PREFECT, "worker", "start", "--pool", WORK_POOL, "--type", "process", "--limit", "1"]
            command += ["--with-healthcheck"]
            worker = processes.start("worker", command, port, "/health", {**_environment(access), **web})
        return worker


def _environment(access: Access) -> dict[str, str]:
    return {**access.environment, "DO_NOT_TRACK": "1"}
