"""Jobs of a Slurm cluster: submitted once, found again, watched to their end, ended in order.

What is asked of Slurm needs neither its accounting nor its REST service: ``sbatch``, ``squeue``, ``scontrol`` and
``scancel`` of the machine that submits. The project's folder must be at the same path on every node.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dav2 import layout

POLL_SECONDS = 1.0
PATIENCE = 120.0
"""Seconds that a job may take for its last checkpoint once it was asked to stop."""
SCRIPTS = Path("infra/slurm")
PYTHON = "DAV2_PYTHON"
"""Environment variable of the batch scripts: the interpreter that runs dav2 on the nodes."""
_LOOKS = 3
"""An end counts once it was seen as often as this: a job that is being queued again shows one for a moment."""
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
}
_SHOWN = 40
"""Last lines of a job's log that an error shows."""


class SlurmError(RuntimeError):
    """Slurm is not there, refuses, or holds a job; the message says what it said and what to do."""


@dataclass(frozen=True)
class Part:
    """A job, or one task of an array, as ``scontrol show job`` describes it.

    Attributes:
        state: Slurm's word for it, such as ``RUNNING``.
        reason: why it waits or ended; ``None`` stands for nothing.
        exit_code: ``status:signal``.
    """

    state: str
    reason: str
    exit_code: str


@dataclass(frozen=True)
class Job:
    """One submitted job.

    Attributes:
        number: Slurm's.
        name: what this project calls it.
        folder: where its script, settings and logs lie.
    """

    number: str
    name: str
    folder: Path

    @property
    def stop_file(self) -> Path:
        """Told to a job that it shall not queue itself again: ``infra/slurm/train.sbatch`` looks for it."""
        return self.folder / f"{self.number}.stop"

    def tail(self) -> str:
        """The last lines of the job's logs."""
        logs = sorted(self.folder.glob(f"{self.name}-{self.number}*.log"))
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        return "\n".join(lines[-_SHOWN:])


def job_name(root: Path, work: str) -> str:
    """Name of the job that does ``work`` in the project at ``root``: another copy of the project has another."""
    return f"dav2-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]}-{work}"


def submit(
    root: Path, work: str, arguments: Sequence[str], options: Sequence[str], environment: dict[str, str], told: str = ""
) -> Job:
    """Submit ``infra/slurm/<script>``, the script of the first argument, for the project at ``root``.

    Args:
        root: folder of the project, where the job runs.
        work: what the job is for; with the project it makes the job's name.
        arguments: file name of the script, then its arguments.
        options: further options of ``sbatch``.
        environment: of the job.
        told: kept with the job, for :func:`find`.

    Raises:
        SlurmError: ``sbatch`` is not there or refuses.
    """
    folder = root.resolve() / layout.STATE / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    script = root.resolve() / SCRIPTS / arguments[0]
    if not script.is_file():
        raise SlurmError(f"{script} does not exist; take {SCRIPTS} of dav2 into the project")
    name = job_name(root, work)
    array = any(option.startswith("--array") for option in options)
    log = folder / (f"{name}-%A-%a.log" if array else f"{name}-%j.log")
    command = ["sbatch", "--parsable", f"--job-name={name}", f"--comment={told}", f"--output={log}",
               f"--chdir={root.resolve()}", *options, str(script), *arguments[1:]]  # fmt: skip
    number = _run(command, {PYTHON: sys.executable, **environment}).strip().partition(";")[0]
    return Job(number, name, folder)


def find(root: Path, work: str) -> tuple[Job, str] | None:
    """The job for ``work`` that waits or runs, and what was told with it."""
    name = job_name(root, work)
    listed = _run(["squeue", "--noheader", "--me", f"--name={name}", "--format=%F|%k"]).splitlines()
    if not listed:
        return None
    number, _, told = listed[0].partition("|")
    return Job(number, name, root.resolve() / layout.STATE / "slurm"), told


def parts(job: Job) -> list[Part] | None:
    """The job, or the tasks of an array, as they are now; ``None`` while Slurm's controller does not answer.

    Raises:
        SlurmError: Slurm knows no such job any more.
    """
    try:
        text = _run(["scontrol", "--oneliner", "show", "job", job.number])
    except SlurmError as error:
        if "Invalid job id" in str(error):
            raise SlurmError(f"Slurm has forgotten job {job.number}; the same command finds what it left") from None
        return None
    found = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        found.append(Part(fields.get("JobState", ""), fields.get("Reason", ""), fields.get("ExitCode", "")))
    return found


def wait(job: Job, tell: Callable[[str], None], look: Callable[[], None] = lambda: None) -> list[Part]:
    """Wait until the job, or every task of an array, has ended; what became of each.

    Args:
        job: as :func:`submit` or :func:`find` gave it.
        tell: called when what the job waits for changes, or Slurm does not answer.
        look: called about once a second.

    Raises:
        SlurmError: Slurm holds the job, so that it would wait without end, or has forgotten it.
    """
    seen, before = 0, ""
    while True:
        look()
        now = parts(job)
        if now is None:
            said = "Slurm's controller does not answer; the job goes on, and this waits"
        else:
            said = _in_words(job, now)
            ended = all(part.state in _ENDED for part in now)
            seen = seen + 1 if ended else 0
            if seen == _LOOKS:
                return now
        if said != before:
            tell(said)
            before = said
        time.sleep(POLL_SECONDS)


def _in_words(job: Job, now: list[Part]) -> str:
    held = next((part.reason for part in now if part.state == "PENDING" and "held" in part.reason.lower()), None)
    if held:
        raise SlurmError(
            f"Slurm holds job {job.number} ({held}); see what is wrong, 'scontrol release {job.number}', and give the "
            f"same command again. Its log ends with:\n{job.tail()}"
        )
    states = {f"{part.state} ({part.reason})" if part.state == "PENDING" else part.state for part in now}
    return f"Slurm job {job.number}: {', '.join(sorted(states))}"


def end(job: Job) -> None:
    """Ask a job to stop and not to come again; after :data:`PATIENCE` seconds Slurm kills what is left of it."""
    job.stop_file.touch()
    _try(["scancel", "--state=PENDING", job.number])
    _try(["scancel", "--signal=TERM", job.number])
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and _lives(job):
        time.sleep(POLL_SECONDS)
    _try(["scancel", job.number])
    while _lives(job):
        time.sleep(POLL_SECONDS)
    job.stop_file.unlink(missing_ok=True)


def _lives(job: Job) -> bool:
    try:
        return bool(_run(["squeue", "--noheader", f"--jobs={job.number}"]).strip())
    except SlurmError as error:
        return "Invalid job id" not in str(error)


def ask(options: Sequence[str], program: str, *arguments: str) -> str:
    """What ``program``, a line of Python, prints on a node that ``options`` of ``srun`` give."""
    return _run(["srun", "--quiet", "--ntasks=1", *options, sys.executable, "-c", program, *arguments])


def _try(command: list[str]) -> None:
    """Run a command whose failure means that there was nothing to do."""
    subprocess.run(command, capture_output=True)


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise SlurmError(f"'{command[0]}' is not installed here; run this on a login node of the cluster")
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode:
        raise SlurmError(f"'{' '.join(command[:2])} …' failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
