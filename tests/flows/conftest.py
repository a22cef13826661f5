"""The finished pipeline that the tests of this folder look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import PrefectServer, Project


@pytest.fixture(scope="session")
def rebuilt(project: Project, prefect_server: PrefectServer) -> str:
    """The clone after one ``dvc repro`` at the tiny scale, interrupted once in the teacher; returns DVC's output."""
    project.run("dav2", "scale", "tiny")
    kill_during_teacher(project)
    done = project.run("dvc", "repro")
    return done.stdout


def kill_during_teacher(project: Project) -> None:
    """Start the pipeline, and SIGKILL all of it once the teacher has written its first checkpoint."""
    dvc = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "teacher"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    checkpoints = project.folder / "artifacts/training/teacher/checkpoints"
    deadline = time.monotonic() + 400
    while not list(checkpoints.glob("step-*")):
        assert dvc.poll() is None, "the pipeline ended before the teacher's first checkpoint"
        assert time.monotonic() < deadline, "the teacher wrote no checkpoint"
        time.sleep(0.02)
    family = [psutil.Process(dvc.pid), *psutil.Process(dvc.pid).children(recursive=True)]
    servers = {json.loads(record.read_text())["pid"] for record in (project.folder / ".dav2").glob("*.json")}
    for process in family:
        if os.getpgid(process.pid) not in servers:
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(family, timeout=10)
