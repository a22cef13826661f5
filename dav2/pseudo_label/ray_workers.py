"""Labelling actors on a Ray cluster, one for each device; each keeps its teacher loaded.

Paths must mean the same on every machine: a shared disk, or ``s3://``. A dead machine costs the shards it had in hand;
Ray starts the actors that replace its own where there is room, and ends all of them when the flow dies.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

from dav2 import machine
from dav2.data import storage
from dav2.documents import LabelReceipt
from dav2.pseudo_label.receipts import ShardTask
from dav2.pseudo_label.workers import NoWorker, WorkerLost, WorkerPool, WorkerSetup, receipt_of

PATIENCE = 180.0
"""Seconds that a cluster may take to place and start an actor."""


class LabellingActor:
    """What runs on the device."""

    def __init__(self, setup: dict[str, object]) -> None:
        from dav2.pseudo_label import worker

        self._answer = worker.answer
        self._labeller = worker.open_labeller(setup)

    def ready(self) -> int:
        """Process id, once the teacher is loaded."""
        return os.getpid()

    def label(self, task: dict[str, object]) -> dict[str, object]:
        """Label a shard; its receipt as a dictionary."""
        return self._answer(self._labeller, task)


class _Actor:
    """The flow's end of one actor."""

    def __init__(self, setup: WorkerSetup, gpu: bool) -> None:
        import ray

        # More than any machine of the cluster has would be waited for without end.
        most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=setup.threads)
        remote = ray.remote(num_cpus=min(setup.threads, most), num_gpus=int(gpu))(LabellingActor)
        self._timeout = setup.timeout
        self._actor = remote.remote({**asdict(setup), "teacher": _everywhere(setup.teacher)})

    def ready(self) -> None:
        import ray

        try:
            ray.get(self._actor.ready.remote(), timeout=PATIENCE)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            self.close()
            raise NoWorker(f"no labelling actor can be started on the Ray cluster: {error}") from error

    def label(self, task: ShardTask) -> LabelReceipt:
        import ray

        local = replace(task, source=_everywhere(task.source), out=_everywhere(task.out))
        try:
            return receipt_of(ray.get(self._actor.label.remote(asdict(local)), timeout=self._timeout))
        except ray.exceptions.GetTimeoutError:
            self.close()
            raise WorkerLost(f"{task.shard}: its labelling actor was stopped after {self._timeout:.0f} s") from None
        except ray.exceptions.RayActorError as error:
            raise WorkerLost(f"{task.shard}: its labelling actor died: {error}") from error

    def close(self) -> None:
        import ray

        ray.kill(self._actor)


def ray_workers(setup: WorkerSetup, count: int) -> WorkerPool:
    """Actors on the cluster at ``RAY_ADDRESS``, or on this machine alone where that is not set.

    Each actor takes a GPU where the cluster has any, else ``setup.threads`` cores.
    """
    gpu = _connect()
    return WorkerPool(count, lambda seat: _Actor(setup, gpu))


def precision_there(setting: machine.Setting) -> machine.Precision:
    """What ``setting`` means on a machine of the cluster that labels."""
    import ray

    gpu = _connect()
    found: machine.Precision = ray.get(ray.remote(num_gpus=int(gpu))(machine.precision).remote(setting))
    return found


def _connect() -> bool:
    """Connect to the cluster, or start one here; whether it has GPUs."""
    import ray

    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False, log_to_driver=True)
    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def _everywhere(path: str) -> str:
    return path if storage.is_remote(path) else str(Path(path).resolve())
