"""Actors on a real Ray cluster of two nodes, one of which is killed while it labels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from dav2.documents import LabelReceipt
from dav2.pseudo_label import ShardTask, finish, plan_shards
from dav2.pseudo_label.pools import open_workers
from dav2.pseudo_label.receipts import is_done
from dav2.pseudo_label.workers import WorkerLost, WorkerPool, WorkerSetup
from tests.pseudo_label.conftest import OPTIONS, write_shards
from tests.pseudo_label.test_workers import contents


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Head and one more node, one core each."""
    # A busy machine needs longer than Ray's 30 seconds to start a node.
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def actors_of(node: Any) -> list[psutil.Process]:
    """Processes of the actors that a node runs."""
    (raylet,) = node.all_processes["raylet"]
    workers = psutil.Process(raylet.process.pid).children()
    return [worker for worker in workers if worker.cmdline()[0].startswith("ray::LabellingActor")]


def test_a_killed_node_costs_no_label(cluster: Any, tmp_path: Path, teacher_folder: Path, digest: str) -> None:
    source = str(write_shards(tmp_path / "shards", shards=6))
    setup = WorkerSetup(str(teacher_folder), OPTIONS, threads=1, device="cpu")
    out, expected = str(tmp_path / "ray"), str(tmp_path / "expected")
    with open_workers("in_process", 1, setup) as alone:
        for task in plan_shards(source, expected, digest, OPTIONS):
            alone.label(task)
    done, losses = threading.Semaphore(0), 0

    def label(pool: WorkerPool, task: ShardTask) -> LabelReceipt | None:
        nonlocal losses
        try:
            return pool.label(task)
        except WorkerLost:
            losses += 1
            return None if is_done(task) else label(pool, task)
        finally:
            done.release()

    with open_workers("ray", 2, setup) as pool, ThreadPoolExecutor(2) as threads:
        assert isinstance(pool, WorkerPool)
        tasks = plan_shards(source, out, digest, OPTIONS)
        list(threads.map(lambda task: label(pool, task), tasks[:2]))  # each node has its actor now
        node = sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0]
        (actor,) = actors_of(node)
        actor.suspend()  # so that it has a task in hand, however fast it is, when its node goes
        results = threads.map(lambda task: label(pool, task), tasks[2:])
        for _ in range(5):
            done.acquire()
        actor.kill()  # with its machine; by itself it might be continued when its raylet goes, and answer in time
        cluster.remove_node(node, allow_graceful=False)
        list(results)
    assert losses >= 1
    finish(out)
    finish(expected)
    assert contents(out) == contents(expected)
