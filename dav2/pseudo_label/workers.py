"""Who labels: this process, a few processes of this machine, or actors of a Ray cluster, one for each device.

All have one shape: :meth:`Workers.label` waits for a free worker, gives it the task and returns the receipt. A worker
keeps its teacher loaded. One that dies takes only its own task with it: :class:`WorkerLost` is raised for that, the
others go on, and a new worker takes its place.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol, Self

from dav2.documents import LabelReceipt
from dav2.pseudo_label.receipts import LabelError, LabelOptions, ShardTask
from dav2.training.compiling import kept


class WorkerLost(RuntimeError):
    """A worker died, or took longer than allowed, while it had a task; the task can be tried again."""


class NoWorker(WorkerLost):
    """A worker cannot be started: the teacher cannot be loaded there, or the cluster has no place for it."""


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


class Worker(Protocol):
    """One worker, from its start to its end."""

    def ready(self) -> None:
        """Wait until its teacher is loaded. Raises ``NoWorker`` if that fails, or when it is closed meanwhile."""

    def label(self, task: ShardTask) -> LabelReceipt:
        """Label a shard; its receipt."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


class Workers(Protocol):
    """A number of workers."""

    count: int

    def label(self, task: ShardTask) -> LabelReceipt:
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

    def label(self, task: ShardTask) -> LabelReceipt:
        """Label a shard in this process; its receipt."""
        with self._turn:
            return self._labeller.label(task)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def receipt_of(answer: dict[str, object]) -> LabelReceipt:
    """What a worker answered, as :func:`dav2.pseudo_label.worker.answer` put it; raises its error."""
    if "error" in answer:
        raise LabelError(str(answer["error"]))
    return LabelReceipt.model_validate(answer["receipt"])


class _Process:
    """One labelling process and the two pipes to it."""

    def __init__(self, setup: WorkerSetup, device: str | None) -> None:
        environment = {**os.environ, **kept(), "OMP_NUM_THREADS": str(setup.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dav2.pseudo_label.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._timeout = setup.timeout
        self._setup = {**asdict(setup), "device": device}

    def ready(self) -> None:
        try:
            self._send(self._setup)
            self._receive()
        except WorkerLost as error:
            raise NoWorker(f"no labelling process can be started: {error}; its output is above") from error

    def label(self, task: ShardTask) -> LabelReceipt:
        self._send(asdict(task))
        return receipt_of(self._receive())

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._lost("ended") from None

    def _receive(self) -> dict[str, object]:
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
        answer: dict[str, object] = json.loads(line)
        return answer

    def _lost(self, how: str) -> WorkerLost:
        self.close()
        return WorkerLost(f"labelling process {self._process.pid} {how} (exit code {self._process.returncode})")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class WorkerPool:
    """A number of seats, each with a worker that is started when it is first needed and again after it was lost.

    A lost worker is replaced in the background, so that no task waits for a start while another worker is free. A seat
    for which no worker can be started is given up as long as there are others, so that a cluster that has lost a
    machine goes on with the rest of it.
    """

    def __init__(self, count: int, start: Callable[[int], Worker]) -> None:
        self.count = count
        self._start = start
        self._free: queue.SimpleQueue[tuple[int, Worker | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._seats = count
        self._workers: set[Worker] = set()
        self._refilling: list[threading.Thread] = []
        self._closed = False
        for seat in range(count):
            self._free.put((seat, None))

    def label(self, task: ShardTask) -> LabelReceipt:
        """Label a shard with the next worker that is free; its receipt."""
        seat, worker = self._occupied_seat()
        lost = False
        try:
            return worker.label(task)
        except WorkerLost:
            lost = True
            raise
        finally:
            if lost:
                self._workers.discard(worker)
                thread = threading.Thread(target=self._refill, args=(seat,), daemon=True)
                self._refilling.append(thread)
                thread.start()
            else:
                self._free.put((seat, worker))

    def _occupied_seat(self) -> tuple[int, Worker]:
        """Wait for a free seat and see that it has a worker."""
        while True:
            seat, worker = self._free.get()
            if worker is not None:
                return seat, worker
            try:
                return seat, self._ready_worker(seat)
            except NoWorker:
                if self._give_up():
                    continue
                self._free.put((seat, None))
                raise

    def _ready_worker(self, seat: int) -> Worker:
        """Start a worker for a seat and wait for it; the end of the pool ends the wait."""
        with self._lock:
            if self._closed:
                raise NoWorker("the labelling has been stopped")
            worker = self._start(seat)
            self._workers.add(worker)
        try:
            worker.ready()
        except BaseException:
            self._workers.discard(worker)
            raise
        return worker

    def _refill(self, seat: int) -> None:
        """Start a worker for a seat that lost its own."""
        try:
            self._free.put((seat, self._ready_worker(seat)))
        except Exception as error:
            if not isinstance(error, NoWorker) or not self._give_up():
                self._free.put((seat, None))  # The next task to come here tries again, and is told why it cannot be.

    def _give_up(self) -> bool:
        """Count one seat less; false if it is the last."""
        with self._lock:
            last = self._seats == 1
            self._seats -= not last
        return not last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.close()
        # Nothing of the pool may touch Ray once its user shuts Ray down: it would connect again, and end the process.
        for thread in self._refilling:
            thread.join()


def process_workers(setup: WorkerSetup, count: int) -> WorkerPool:
    """Processes of this machine; where it has GPUs each gets one, in turn."""

    def start(seat: int) -> Worker:
        import torch

        gpus = torch.cuda.device_count() if setup.device is None else 0
        return _Process(setup, f"cuda:{seat % gpus}" if gpus else setup.device)

    return WorkerPool(count, start)
