"""One shard in, one label shard out: decode ahead, teacher, encode behind.

The device should never wait. While it works on one batch, threads decode the next two and code the labels of the last;
on a GPU the next batch is started before the result of the last one is fetched. Labels are written in the order of the
photographs in their shard, whatever the order of the batches.
"""

from __future__ import annotations

import hashlib
import platform
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import torch

from dav2 import limits, machine
from dav2.data import storage
from dav2.data.frame import FrameError
from dav2.data.store.manifest import shard_path
from dav2.data.store.packing import CodecError
from dav2.data.store.shards import ShardError, ShardWriter
from dav2.documents import LabelReceipt
from dav2.pseudo_label import rows
from dav2.pseudo_label.batches import plan_batches, read_photos
from dav2.pseudo_label.cache import ShardCache
from dav2.pseudo_label.pipeline import Label, LabelPipeline
from dav2.pseudo_label.receipts import LabelError, ShardTask, read_receipt, receipt_name, rows_name
from dav2.pseudo_label.teacher import Teacher


class _Finished(Exception):
    """Another worker has written this task's receipt meanwhile."""

    def __init__(self, receipt: LabelReceipt) -> None:
        super().__init__(receipt.shard)
        self.receipt = receipt


class Labeller:
    """A teacher with its helper threads and its cache of shards, ready for one task after another.

    Args:
        teacher: the model on its device.
        threads: threads that decode and encode; by default one per core.
        cache: where shards of a bucket are copied to; needed only for those.
    """

    def __init__(self, teacher: Teacher, threads: int | None = None, cache: ShardCache | None = None) -> None:
        self.teacher = teacher
        self.threads = threads or limits.cores()
        self.cache = cache or ShardCache(Path(".dav2/cache/shards"))

    def label(self, task: ShardTask, on_label: Callable[[int], None] | None = None) -> LabelReceipt:
        """Label one shard and write label tar, rows and receipt, in this order.

        When another worker has finished the same task meanwhile, its receipt is returned and nothing is written.

        Args:
            task: from :func:`dav2.pseudo_label.plan_shards`.
            on_label: called with the number of labels written so far.

        Raises:
            LabelError: a photograph does not have the bytes that the manifest says, cannot be decoded, or gets a label
                that is not finite; teacher or shard are not the planned ones; or another worker's result differs.
        """
        if self.teacher.digest != task.teacher:
            loaded = self.teacher.digest[:12]
            raise LabelError(f"{task.shard}: planned for teacher {task.teacher[:12]}, but {loaded} is loaded")
        path = shard_path(task.source, task.shard)
        begun = time.monotonic()
        try:
            with self.cache.local(path, task.images) as shard:
                return self._label(task, shard, on_label or (lambda done: None), begun)
        except _Finished as finished:
            return finished.receipt
        except (FrameError, ShardError, CodecError, storage.StorageError) as error:
            self.cache.drop(path, task.images)
            raise LabelError(f"{path}: {error}") from error

    def _label(self, task: ShardTask, shard: Path, on_label: Callable[[int], None], begun: float) -> LabelReceipt:
        photos = read_photos(task)
        shape_of = self.teacher.teaching.shape
        size = task.options.input_size
        batches = plan_batches(photos, lambda photo: shape_of(photo.height, photo.width, size), task.options.batch)
        table: list[dict[str, object]] = []
        with ShardWriter(storage.join(task.out, task.shard)) as writer:
            with ThreadPoolExecutor(self.threads) as pool:
                pipeline = LabelPipeline(shard, photos, task.options, self.teacher, pool)
                for label in in_order(pipeline.run(batches)):
                    place = writer.add(str(label.row["key"]), label.members())[label.field]
                    table.append(
                        {**label.row, "shard": task.shard, "offset_label": place.offset, "size_label": place.size}
                    )
                    on_label(len(table))
            # A stale worker that outlived its flow must not overwrite a shard that has been finished meanwhile.
            if (finished := read_receipt(task.out, task.shard)) is not None:
                raise _Finished(finished)
        data = rows.to_parquet(table)
        storage.write(storage.join(task.out, rows_name(task.shard)), data)
        receipt = LabelReceipt(
            shard=task.shard,
            fingerprint=task.fingerprint,
            teacher=task.teacher,
            images=task.images,
            options=task.options.fingerprinted(),
            frames=len(table),
            label_sha256=writer.sha256,
            label_bytes=writer.size,
            rows_sha256=hashlib.sha256(data).hexdigest(),
            run=self._run(task, time.monotonic() - begun),
        )
        return _commit(task, receipt)

    def _run(self, task: ShardTask, seconds: float) -> dict[str, object]:
        """What a person wants to know about how a shard was made, and nothing that decides anything."""
        return {
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "host": socket.gethostname(),
            "device": str(self.teacher.device),
            "processor": machine.look().processor,
            "batch": task.options.batch,
            "halved": self.teacher.halved,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def in_order(labels: Iterator[tuple[int, Label]]) -> Iterator[Label]:
    """Labels by index 0, 1, 2 …; one that comes early is held until its turn."""
    held: dict[int, Label] = {}
    turn = 0
    for index, label in labels:
        held[index] = label
        while turn in held:
            yield held.pop(turn)
            turn += 1


def _commit(task: ShardTask, receipt: LabelReceipt) -> LabelReceipt:
    """Write the receipt if there is none; the other one must say the same.

    Raises:
        LabelError: two workers made different labels of one shard with one teacher, so their machines compute
            differently; the shard is discarded, so that the next run decides.
    """
    if storage.create_once(storage.join(task.out, receipt_name(task.shard)), receipt.to_json()):
        return receipt
    other = read_receipt(task.out, task.shard)
    if other != receipt:
        # Without a receipt the shard counts as not labelled, whichever of the two wrote last.
        storage.remove(storage.join(task.out, receipt_name(task.shard)))
        raise LabelError(
            f"{task.shard}: another worker finished it with different labels, so neither is kept and the next run "
            "makes it again. Use workers of one kind (device, number of threads, library versions)"
        )
    return other
