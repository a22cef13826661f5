"""Starting the ranks of a run, watching them, and never leaving one behind.

On one machine the ranks are processes of a session of their own, started by torchrun; a single rank is started
directly, because the agent would do nothing for it but cost seconds. Ray and Slurm place ranks over a cluster
(:mod:`dav2.training.ray_launch`, :mod:`dav2.training.slurm_launch`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dav2 import layout, machine
from dav2.data.feed.read_ahead import FOLDER, shared_folder
from dav2.params import Params, load
from dav2.runs import get_run
from dav2.training.compiling import kept
from dav2.training.death import stop_with_parent
from dav2.training.errors import Interrupted, TrainingError
from dav2.training.journal import Line, parse_line
from dav2.training.repeat import REPEATABLE
from dav2.training.train import ERROR, RANK, STOP_NOTE

Event = Line

GRACE_SECONDS = 120.0
"""How long ranks may take for their last checkpoint after they were asked to stop."""
_SHOWN = 40
"""Last lines of output that an error shows."""
_KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}" for name in ("hugetlb=1", "mmap_max=0", "trim_threshold=100000000000", "top_pad=268435456")
)


def launch(run: str, params_path: Path, root: Path, on_event: Callable[[Event], None] | None = None) -> Path:
    """Train a run in processes of its own and wait for it.

    The processes end when this call ends, however it ends: on an exception or SIGTERM here they are asked to write a
    checkpoint and are killed if they do not; if this process is killed, the kernel asks them.

    Args:
        run: ``teacher``, ``student-<key>`` or ``metric-<range>``.
        params_path: ``params.yaml``.
        root: folder of the project.
        on_event: called with every line of ``metrics.jsonl`` and ``evaluations.jsonl`` as it is written.

    Returns:
        The model directory.

    Raises:
        ParamsError: the settings cannot be used.
        Interrupted: the run was asked to stop and can go on.
        TrainingError: it failed; the message is what it said, or ends with the last lines of its output.
    """
    params = load(params_path)
    get_run(params, run)
    if params.compute.launcher == "ray":
        from dav2.training.ray_launch import launch_on_ray

        return launch_on_ray(params, run, root, on_event)
    if params.compute.launcher == "slurm":
        from dav2.training.slurm_launch import launch_on_slurm

        return launch_on_slurm(params, run, root, environment(params), on_event)
    command = [*_python(params), "-m", RANK]
    command += ["--run", run, "--params", str(params_path), "--root", str(root)]
    with shared_folder() as folder:
        # torchrun replaces the exit status of its ranks by its own, so a rank that stops in order leaves a note.
        note = folder / "stopped"
        env = {**environment(params), FOLDER: str(folder), STOP_NOTE: str(note)}
        status, tail = _watch(command, env, on_event)
        stopped = note.exists()
    if status == 0:
        return layout.model(root, run)
    if stopped:
        raise Interrupted(f"{run} was stopped after writing a checkpoint; the same command goes on from there")
    said = next((line.removeprefix(ERROR) for line in reversed(tail) if line.startswith(ERROR)), None)
    if said is not None:
        raise TrainingError(f"training {run} failed: {said}")
    raise TrainingError(f"training {run} failed with status {status}:\n" + "\n".join(tail))


def environment(params: Params) -> dict[str, str]:
    """Environment of the ranks: threads for each, and no operator compiled that training does not use."""
    threads = str(machine.threads(params.compute.threads))
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",
        **kept(),
        **(REPEATABLE if params.compute.deterministic else {}),
        # A step frees and takes the same large tensors again. Kept in huge pages, not returned to the kernel and
        # faulted in page by page, they made the sample teacher's step on two cores more than twice as fast.
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", _KEEP_MEMORY),
        # Relative to where commands run: what DeepSpeed may compile stays with the project.
        "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", str(Path(".dav2/torch_extensions").resolve())),
    }


def _python(params: Params) -> list[str]:
    if params.compute.world_size == 1:
        return [sys.executable]
    ranks = str(params.compute.world_size)
    # --standalone picks a free port, so two runs on one machine do not meet; what follows -- is not torchrun's to read.
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks, "--no-python",
            "--", sys.executable]  # fmt: skip


def _watch(command: list[str], env: dict[str, str], on_event: Callable[[Event], None] | None) -> tuple[int, deque[str]]:
    """Run a command to its end; its exit status and last lines of output that are no events."""
    tail: deque[str] = deque(maxlen=_SHOWN)
    with _session(command, env) as process, _terminates(process):
        assert process.stdout is not None
        for text in process.stdout:
            event = parse_line(text)
            if event is None:
                tail.append(text.rstrip())
                print(text, end="", file=sys.stderr)
            elif on_event is not None:
                on_event(event)
        return process.wait(), tail


@contextmanager
def _session(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process leading a session of its own, which is gone when the block ends."""
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, preexec_fn=stop_with_parent,
    )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the session to stop, wait for its checkpoint, then kill what is left of it."""
    if process.poll() is None:
        _ask_to_stop(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _ask_to_stop(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to the ranks themselves: torchrun would give them only half a minute for their checkpoint."""
    with suppress(psutil.NoSuchProcess):
        agent = psutil.Process(process.pid)
        for rank in agent.children() or [agent]:
            rank.terminate()


@contextmanager
def _terminates(process: subprocess.Popen[str]) -> Iterator[None]:
    """Pass SIGTERM on to the process while the block runs; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: _ask_to_stop(process))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
