"""Labelling as an array job of a Slurm cluster: one task for each worker, a share of the shards for each task.

Nothing is handed over but files: the plan, and the receipts that come of it. What is left when the array has ended is
submitted again, as often as retries are allowed. Paths must mean the same on every node: a shared disk, or ``s3://``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from dav2 import layout, machine, slurm
from dav2.data import storage
from dav2.files import write_whole
from dav2.pseudo_label.receipts import LabelError, ShardTask, is_done, receipt_name
from dav2.pseudo_label.workers import WorkerSetup

SCRIPT = "label.sbatch"
WORK = "pseudo-label"
_LOOK_EVERY = 5
"""Looks at the job between two at the labels."""
_PROBE = """
import json, sys
from dataclasses import asdict
from dav2 import machine
print(json.dumps(asdict(machine.precision(sys.argv[1]))))
"""


def label_on_slurm(
    tasks: list[ShardTask], setup: WorkerSetup, workers: int, options: list[str], retries: int, root: Path,
    progress: Callable[[int, int], None], tell: Callable[[str], None],
) -> list[str]:  # fmt: skip
    """Label ``tasks`` on the cluster and wait for it.

    Args:
        tasks: as ``plan_shards`` gives them, none of them done.
        setup: what each task needs; its threads become ``--cpus-per-task``.
        workers: tasks of the array.
        options: further options of ``sbatch``.
        retries: how often what failed is submitted again.
        root: folder of the project.
        progress: called with the photographs that are labelled, and all of them.
        tell: called with what the job waits for.

    Returns:
        One message for each shard that is not labelled in spite of the retries.

    Raises:
        LabelError: Slurm does not take the job, or holds it.
    """
    left, total, logs = tasks, sum(task.frames for task in tasks), ""
    job: slurm.Job | None = None
    try:
        for _ in range(retries + 1):
            job = _submit(left, setup, min(workers, len(left)), options, root)
            slurm.wait(job, tell, _Watch(tasks, progress))
            logs, job = job.tail(), None
            left = [task for task in left if not is_done(task)]
            progress(total - sum(task.frames for task in left), total)
            if not left:
                break
    except slurm.SlurmError as error:
        raise LabelError(f"labelling on Slurm: {error}") from error
    finally:
        if job is not None:
            slurm.end(job)
    return [f"{task.shard} of {task.source}; the last job's log ends with:\n{logs}" for task in left]


def end_left_over(root: Path) -> None:
    """End an array of this project that still runs though nobody waits for it; it costs at most the shards in hand.

    Raises:
        LabelError: Slurm is not there.
    """
    try:
        found = slurm.find(root, WORK)
        if found is not None:
            slurm.end(found[0])
    except slurm.SlurmError as error:
        raise LabelError(f"labelling on Slurm: {error}") from error


def precision_there(setting: machine.Setting, options: list[str]) -> machine.Precision:
    """What ``setting`` means on a node that labels."""
    return machine.Precision(**json.loads(slurm.ask(options, _PROBE, setting).splitlines()[-1]))


def _submit(left: list[ShardTask], setup: WorkerSetup, count: int, options: list[str], root: Path) -> slurm.Job:
    everywhere = [asdict(replace(task, source=_path(task.source), out=_path(task.out))) for task in left]
    tree = {
        "setup": {**asdict(setup), "teacher": _path(setup.teacher)},
        "tasks": [everywhere[number::count] for number in range(count)],
    }
    plan = root.resolve() / layout.STATE / "slurm" / f"{WORK}.json"
    write_whole(plan, json.dumps(tree, indent=1, sort_keys=True))
    threads = str(setup.threads)
    own = [f"--array=0-{count - 1}", f"--cpus-per-task={threads}", *options]
    return slurm.submit(root, WORK, [SCRIPT, str(plan)], own, {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads})


class _Watch:
    """Counts labelled photographs by the names of the receipts, every few looks."""

    def __init__(self, tasks: list[ShardTask], progress: Callable[[int, int], None]) -> None:
        self.tasks, self.progress, self.looks = tasks, progress, 0

    def __call__(self) -> None:
        self.looks += 1
        if self.looks % _LOOK_EVERY == 0:
            there = {out: set(storage.names(out)) for out in {task.out for task in self.tasks}}
            done = sum(task.frames for task in self.tasks if receipt_name(task.shard) in there[task.out])
            self.progress(done, sum(task.frames for task in self.tasks))


def _path(path: str) -> str:
    return path if storage.is_remote(path) else str(Path(path).resolve())
