"""The whole pipeline as one flow: walks the DAG of ``dvc.yaml`` and runs stage after stage as tasks.

``dvc.yaml`` stays the only DAG and DVC alone decides what is stale: a task is ``dvc repro --single-item <stage>``, so a
stage that is up to date costs a second. This is what the schedule in ``infra/prefect.yaml`` starts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from prefect import flow, task
from prefect.logging import get_run_logger

from flows.access import Access
from flows.page import access_in_use, answers
from flows.processes import stop_group
from flows.runtime import TASK, StageError, run_stage, show_table


def stages(targets: list[str] | None = None) -> list[str]:
    """Addresses of the pipeline's stages, parents first; with ``targets``, only those and what they need."""
    import networkx as nx
    from dvc.repo import Repo

    with Repo() as repo:
        graph = repo.index.graph
        wanted = set(graph)
        if targets:
            chosen = {stage for name in targets for stage in repo.stage.collect(name)}
            wanted = chosen.union(*(nx.descendants(graph, stage) for stage in chosen))
        # An edge points from a stage to what it depends on; data.dvc is data, not work, and has no command.
        order = reversed(list(nx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)))
        return [stage.addressing for stage in order if stage in wanted and stage.cmd]


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
        env={**os.environ, **(access.environment if answers() else {}), "DVC_NO_ANALYTICS": "1"},
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
    ran = {stage: reproduce(stage, access) for stage in stages(targets)}
    show_table("rebuild", [{"stage": stage, "ran": did} for stage, did in ran.items()], "Stages, and which of them ran")
    return ran


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to rebuild with all they need; everything when left out")
    run_stage(rebuild, targets=parser.parse_args().targets or None)
