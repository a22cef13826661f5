"""Ranks placed over the nodes of a Slurm cluster: submitted from a login node, waited for, and found again.

The job is ``infra/slurm/train.sbatch``; Slurm itself starts one process per rank. A job that is preempted, loses a node
or comes near its time limit is queued again and goes on from the newest whole checkpoint. If the launcher dies, the job
goes on, and the same command finds it and waits for it.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dav2 import layout, slurm
from dav2.code_state import git_state
from dav2.files import write_whole
from dav2.params import Params
from dav2.training.errors import Interrupted, TrainingError
from dav2.training.follow import Events
from dav2.training.journal import Line, announce

SCRIPT = "train.sbatch"


def launch_on_slurm(
    params: Params, run: str, root: Path, environment: dict[str, str], on_event: Callable[[Line], None] | None = None
) -> Path:
    """Train a run as a Slurm job and wait for it; see ``dav2.training.launch.launch``.

    Args:
        params: the settings; the job gets a copy, so that a later edit does not change a run that waits.
        run: name of the run.
        root: folder of the project.
        environment: of the ranks.
        on_event: as for ``launch``.

    Raises:
        Interrupted: the job was cancelled, or this call was asked to stop.
        TrainingError: the job failed, or Slurm does not take it; the message ends with the last lines of its log.
    """
    root = root.resolve()
    text = json.dumps(params.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True)
    try:
        with Events(layout.training(root, run), on_event):
            job = _job(params, run, root, environment, text)
            with _ends_with_us(job):
                ended = slurm.wait(job, announce)[0]
    except slurm.SlurmError as error:
        raise TrainingError(f"training {run} on Slurm: {error}") from error
    if ended.state == "COMPLETED":
        return layout.model(root, run)
    if ended.state == "CANCELLED" or job.stop_file.exists():
        raise Interrupted(f"{run}: Slurm job {job.number} was stopped; the same command goes on from its checkpoint")
    raise TrainingError(
        f"training {run} failed: Slurm job {job.number} ended as {ended.state}, exit {ended.exit_code}:\n{job.tail()}"
    )


def _job(params: Params, run: str, root: Path, environment: dict[str, str], text: str) -> slurm.Job:
    """The job that trains this already, or a new one; one of other settings or code is ended first."""
    code = json.dumps(git_state(root), sort_keys=True)
    told = hashlib.sha256(f"{code}{text}".encode()).hexdigest()[:16]
    found = slurm.find(root, run)
    if found is not None and found[1] == told:
        announce(f"{run}: Slurm job {found[0].number} is at it already")
        return found[0]
    if found is not None:
        announce(f"{run}: Slurm job {found[0].number} has other settings or code; it is stopped")
        slurm.end(found[0])
    settings = root / layout.STATE / "slurm" / f"{run}.params.yaml"
    write_whole(settings, text)
    compute = params.compute
    options = [
        f"--nodes={compute.slurm.nodes}",
        f"--ntasks-per-node={compute.world_size // compute.slurm.nodes}",
        f"--cpus-per-task={compute.threads}",
        *compute.slurm.options,
    ]
    threads = str(compute.threads)
    own = {**environment, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return slurm.submit(root, run, [SCRIPT, run, str(settings)], options, own, told)


@contextmanager
def _ends_with_us(job: slurm.Job) -> Iterator[None]:
    """End the job when the block ends by an exception, or with SIGTERM in the main thread, as Ctrl-C does."""
    main = threading.current_thread() is threading.main_thread()

    def stop(*_: object) -> None:
        raise Interrupted(f"asked to stop; Slurm job {job.number} has been told to write a checkpoint")

    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except slurm.SlurmError:
        raise
    except BaseException:
        slurm.end(job)
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
