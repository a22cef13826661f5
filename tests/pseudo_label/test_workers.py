"""Labelling processes: kept from shard to shard, replaced when they die, gone when their starter is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dav2.data.storage import TEMPORARY
from dav2.documents import LabelReceipt
from dav2.pseudo_label import LabelError, ShardTask, finish, plan_shards
from dav2.pseudo_label.pools import open_workers
from dav2.pseudo_label.workers import NoWorker, WorkerLost, WorkerPool, WorkerSetup, process_workers
from tests.documents import label_receipt
from tests.pseudo_label.conftest import OPTIONS


class Stub:
    """A worker that does what it is told."""

    def __init__(self, seat: int, fail: Exception | None = None) -> None:
        self.seat, self.fail, self.closed = seat, fail, False

    def ready(self) -> None:
        pass

    def label(self, task: ShardTask) -> LabelReceipt:
        if self.fail:
            raise self.fail
        return label_receipt(task.shard, fingerprint=str(self.seat))

    def close(self) -> None:
        self.closed = True


def task(shard: str = "train-000000.tar") -> ShardTask:
    return ShardTask("in", "out", shard, "", 1, "", OPTIONS)


def test_a_worker_is_kept_from_task_to_task_and_closed_at_the_end() -> None:
    started: list[Stub] = []
    with WorkerPool(1, lambda seat: started.append(Stub(seat)) or started[-1]) as pool:  # type: ignore[func-returns-value]
        for _ in range(3):
            pool.label(task())
    assert len(started) == 1
    assert started[0].closed


def test_a_lost_worker_costs_its_own_task_only_and_is_replaced() -> None:
    workers = iter([Stub(0, WorkerLost("gone")), Stub(0)])
    pool = WorkerPool(1, lambda seat: next(workers))
    with pytest.raises(WorkerLost):
        pool.label(task())
    assert pool.label(task()).shard == "train-000000.tar"


def test_no_task_waits_for_a_replacement_while_another_worker_is_free() -> None:
    replaced = threading.Event()
    first = Stub(0, WorkerLost("its node is gone"))

    class Late(Stub):
        def ready(self) -> None:
            assert replaced.wait(60)

    def start(seat: int) -> Stub:
        again = seat == 0 and first in started
        started.append(Late(0) if again else first if seat == 0 else Stub(seat))
        return started[-1]

    started: list[Stub] = []
    with WorkerPool(2, start) as pool:
        with pytest.raises(WorkerLost):
            pool.label(task())
        assert [pool.label(task()).fingerprint for _ in range(3)] == ["1", "1", "1"]
        replaced.set()
        assert {pool.label(task()).fingerprint for _ in range(2)} <= {"0", "1"}


class Slow(Stub):
    """Not ready before it is closed."""

    def __init__(self, seat: int) -> None:
        super().__init__(seat)
        self.waiting, self.stopped = threading.Event(), threading.Event()

    def ready(self) -> None:
        self.waiting.set()
        assert self.stopped.wait(60)
        raise NoWorker("closed")

    def close(self) -> None:
        super().close()
        self.stopped.set()


def test_the_end_stops_a_worker_that_is_being_started_and_waits_for_its_thread() -> None:
    slow = Slow(0)
    workers = iter([Stub(0, WorkerLost("gone")), slow])
    before = set(threading.enumerate())
    with WorkerPool(1, lambda seat: next(workers)) as pool:
        with pytest.raises(WorkerLost):
            pool.label(task())
        assert slow.waiting.wait(60)
    assert slow.closed
    assert set(threading.enumerate()) <= before


def test_no_worker_is_started_after_the_end() -> None:
    slow, started = Slow(0), []

    def start(seat: int) -> Stub:
        started.append(seat)
        return slow

    with ThreadPoolExecutor(1) as threads:
        with WorkerPool(2, start) as pool:
            waiting = threads.submit(pool.label, task())
            assert slow.waiting.wait(60)
        with pytest.raises(NoWorker, match="stopped"):
            waiting.result(60)
    assert started == [0]


def test_a_task_that_fails_leaves_its_worker_in_place() -> None:
    workers = iter([Stub(0, LabelError("bad photograph"))])
    pool = WorkerPool(1, lambda seat: next(workers))
    for _ in range(2):
        with pytest.raises(LabelError, match="bad photograph"):
            pool.label(task())


def test_a_seat_that_cannot_be_filled_is_given_up_while_there_are_others() -> None:
    def start(seat: int) -> Stub:
        if seat == 0:
            raise NoWorker("no place")
        return Stub(seat)

    pool = WorkerPool(2, start)
    assert [pool.label(task()).fingerprint for _ in range(3)] == ["1", "1", "1"]


def test_when_no_seat_can_be_filled_every_task_says_so() -> None:
    def start(seat: int) -> Stub:
        raise NoWorker("no place")

    pool = WorkerPool(3, start)
    for _ in range(2):
        with pytest.raises(NoWorker, match="no place"):
            pool.label(task())


def test_processes_label_what_the_calling_process_labels_and_outlive_a_kill(
    source: Path, tmp_path: Path, teacher_folder: Path, digest: str
) -> None:
    """Two processes, one of which is killed with a shard in hand; its shard is labelled by the one that replaces it."""
    setup = WorkerSetup(str(teacher_folder), OPTIONS, threads=1, device="cpu")
    outs = {runner: str(tmp_path / runner) for runner in ("in_process", "process_pool")}
    with open_workers("in_process", 1, setup) as workers:
        for job in plan_shards(str(source), outs["in_process"], digest, OPTIONS):
            workers.label(job)
    with process_workers(setup, 1) as pool:
        jobs = plan_shards(str(source), outs["process_pool"], digest, OPTIONS)
        pool.label(jobs[0])
        (child,) = labelling_processes()
        child.suspend()
        killer = threading.Timer(0.3, child.kill)
        killer.start()
        with pytest.raises(WorkerLost, match="exit code -9"):
            pool.label(jobs[1])
        killer.join()
        for job in jobs[1:]:
            pool.label(job)
        with pytest.raises(LabelError, match="planned for teacher"):
            pool.label(replace(jobs[0], teacher="0" * 64, out=str(tmp_path / "other")))
    assert not labelling_processes()
    Path(outs["process_pool"], f"{TEMPORARY}of-a-killed-writer").touch()
    for folder in outs.values():
        finish(folder)
    assert contents(outs["in_process"]) == contents(outs["process_pool"])


def labelling_processes() -> list[psutil.Process]:
    """Those that this process has started; other tests may have left it children of other kinds."""
    return [one for one in psutil.Process().children() if "dav2.pseudo_label.worker" in " ".join(one.cmdline())]


def contents(folder: str) -> dict[str, bytes]:
    """Every file that must not depend on who made it."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix != ".json"}


def test_a_process_ends_when_its_starter_is_killed(teacher_folder: Path, tmp_path: Path) -> None:
    program = f"""
import time
from dav2.pseudo_label import LabelOptions
from dav2.pseudo_label.workers import WorkerSetup, _Process
process = _Process(WorkerSetup({str(teacher_folder)!r}, LabelOptions(input_size=56), 1, "cpu"), "cpu")
print(process._process.pid, flush=True)
time.sleep(600)
"""
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    worker = psutil.Process(int(starter.stdout.readline()))
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    worker.wait(timeout=300)


def test_a_worker_that_takes_too_long_is_stopped(teacher_folder: Path) -> None:
    setup = WorkerSetup(str(teacher_folder), OPTIONS, threads=1, device="cpu", timeout=0.05)
    with process_workers(setup, 1) as pool, pytest.raises(WorkerLost, match=r"stopped after 0 s"):
        pool.label(task())


def test_a_teacher_that_cannot_be_loaded_is_an_error_not_a_hang(tmp_path: Path) -> None:
    setup = WorkerSetup(str(tmp_path / "nothing"), OPTIONS, threads=1, device="cpu")
    with process_workers(setup, 1) as pool, pytest.raises(NoWorker, match="no labelling process can be started"):
        pool.label(task())
