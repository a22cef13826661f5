"""The whole pipeline as one flow: walks the DAG of ``dvc.yaml`` and runs stage after stage as tasks.

``dvc.yaml`` stays the only DAG and DVC alone decides what is stale: a task is ``dvc repro --single-item <stage>``, so a
stage that is up to date costs a second. This is what the schedule in ``infra/prefect.yaml`` starts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from prefect import flow, task
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from flows.access import Access
from flows.order import stages, why_stale
from flows.page import access_in_use, answers
from flows.processes import stop_group
from flows.runtime import PARENT, TASK, StageError, run_stage, show_table


def _own_task() -> str:
    run = TaskRunContext.get()
    return str(run.task_run.id) if run is not None else ""


@task(task_run_name="{stage}", **TASK)
def reproduce(stage: str, access: Access) -> bool:
    """Run one stage if DVC finds it stale; returns whether it ran.

    DVC runs in a process group of its own, ended with the task: a killed ``dvc`` would leave its command behind.
    """
    logger = get_run_logger()
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(access.environment if answers() else {}), "DVC_NO_ANALYTICS": "1", PARENT: _own_task()},
        start_new_session=True,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            logger.info(lines[-1])
        if process.wait():
            raise StageError(f"stage {stage} failed:\n" + "\n".join(lines[-15:]))
    finally:
        if process.poll() is None:
            stop_group(process.pid)
    return any(line.startswith("Running stage") for line in lines)


@flow(name="rebuild")
def rebuild(targets: list[str] | None = None) -> dict[str, bool]:
    """Rebuild what is stale in the working directory, stage by stage.

    Args:
        targets: stages to rebuild with all they need; everything when left out.
    """
    access = access_in_use()
    wanted, stale = stages(targets), why_stale()
    rows = [{"stage": stage, "stale because of": stale[stage]} for stage in wanted if stale.get(stage)]
    show_table("rebuild-why", rows, "What was stale when the rebuild began, and why; what follows from it runs too")
    ran, took = {}, {}
    for stage in wanted:
        begun = time.monotonic()
        ran[stage] = reproduce(stage, access)
        took[stage] = time.monotonic() - begun
    table = [
        {"stage": stage, "ran": did, "seconds": round(took[stage], 1), "stale because of": stale.get(stage, "")}
        for stage, did in ran.items()
    ]
    title = f"Start here: {sum(ran.values())} of {len(ran)} stages ran, the others were up to date"
    show_table("rebuild", table, title)
    return ran


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to rebuild with all they need; everything when left out")
    run_stage(rebuild, targets=parser.parse_args().targets or None)
