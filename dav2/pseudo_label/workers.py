"""Who labels: this process, a few processes of this machine, or actors of a Ray cluster, one for each device.

All have one shape: :meth:`Workers.label` waits for a free worker, gives it the task and returns the receipt. A worker
keeps its teacher loaded. One that dies takes only its own task with it: :class:`WorkerLost` is raised for that, the
others go on, and the next task finds a new worker.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from dav2.pseudo_label.receipts import LabelError, LabelOptions, Receipt, ShardTask


class WorkerLost(RuntimeError):
    """A worker died, or took longer than allowed, while it had a task; the task can be tried again."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker needs before its first task.

    Attributes:
        teacher: model directory.
        options: as in the tasks.
        threads: threads of the forward pass on a CPU, and of decoding and encoding.
        device: torch device; ``None`` takes the first GPU if there is one.
        timeout: seconds after which a worker with a task is given up, but for the one in this process.
    """

    teacher: str
    options: LabelOptions
    threads: int
    device: str | None = None
    timeout: float = 7200.0


class Workers(Protocol):
    """A number of workers."""

    count: int

    def label(self, task: ShardTask) -> Receipt:
        """Label one shard. Raises ``LabelError`` when it cannot be labelled, ``WorkerLost`` when its worker is gone."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class InProcessWorker:
    """The calling process, one shard at a time."""

    def __init__(self, setup: WorkerSetup) -> None:
        import torch

        from dav2.pseudo_label.labeller import Labeller
        from dav2.pseudo_label.teacher import Teacher

        self.count = 1
        self._turn = threading.Lock()
        torch.set_num_threads(setup.threads)
        self._labeller = Labeller(Teacher.open(setup.teacher, setup.options, setup.device), setup.threads)

    def label(self, task: ShardTask) -> Receipt:
        with self._turn:
            return self._labeller.label(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Process:
    """One labelling process and the two pipes to it."""

    def __init__(self, setup: WorkerSetup, device: str | None) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(setup.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dav2.pseudo_label.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._timeout = setup.timeout
        self._send({**asdict(setup), "device": device})
        self._receive()

    def label(self, task: ShardTask) -> Receipt:
        self._send(asdict(task))
        answer = self._receive()
        if "error" in answer:
            raise LabelError(answer["error"])
        return Receipt(**answer["receipt"])

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._lost("ended") from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self._timeout, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            in_time = timer.is_alive()
            timer.cancel()
        if not line.endswith("\n"):
            raise self._lost("ended" if in_time else f"was stopped after {self._timeout:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _lost(self, how: str) -> WorkerLost:
        self.close()
        return WorkerLost(f"labelling process {self._process.pid} {how} (exit code {self._process.returncode})")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class ProcessWorkers:
    """Processes of this machine, one for each GPU in turn where there are GPUs."""

    def __init__(self, setup: WorkerSetup, count: int) -> None:
        self.count = count
        self._setup = setup
        self._free: queue.SimpleQueue[tuple[int, _Process | None]] = queue.SimpleQueue()
        self._running: set[_Process] = set()
        for seat in range(count):
            self._free.put((seat, None))

    def label(self, task: ShardTask) -> Receipt:
        seat, process = self._free.get()
        try:
            if process is None:
                process = _Process(self._setup, self._device(seat))
                self._running.add(process)
            return process.label(task)
        except WorkerLost:
            self._running.discard(process) if process else None
            process = None
            raise
        finally:
            self._free.put((seat, process))

    def _device(self, seat: int) -> str | None:
        import torch

        gpus = torch.cuda.device_count()
        return f"cuda:{seat % gpus}" if gpus and self._setup.device is None else self._setup.device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.close()


def open_workers(runner: str, count: int, setup: WorkerSetup) -> Workers:
    """Workers by the name of a runner: ``in_process``, ``process_pool`` or ``ray``."""
    if runner == "process_pool":
        return ProcessWorkers(setup, count)
    if runner == "ray":
        from dav2.pseudo_label.ray_workers import RayWorkers

        return RayWorkers(setup, count)
    return InProcessWorker(setup)
