"""Which shards need labelling, and the receipt that says one is done.

A receipt names the teacher by the hash of its weights, the photographs by the hash of their shard, and the options that
shape a label. Their common hash is the *fingerprint*: a shard whose receipt has another fingerprint is stale, and no
other one is. Batch size, device, thread count and time touch rounding or nothing; they are recorded in the receipt's
``run`` part and make nothing stale.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import ValidationError

from dav2.data import storage
from dav2.data.store import manifest
from dav2.documents import LabelReceipt

RECEIPT = ".receipt.json"


class LabelError(RuntimeError):
    """A shard that cannot be labelled; the message names the shard and, where one is at fault, the photograph."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """What shapes a label besides teacher and photograph.

    Attributes:
        input_size: short side of the teacher's input in pixels, a multiple of its patch size.
        precision: ``bf16`` or ``fp32``.
        codec: name of a disparity codec of :mod:`dav2.data.store.depth_codec`.
        bits: bit depth of the stored disparity.
        flip_agreement: also label the mirrored photograph and record how well both agree.
        scale_agreement: likewise at about three quarters of the input size.
        embedding: record a small descriptor of the photograph's content, for :mod:`dav2.pseudo_label.select`.
        code: digest of the code that decides a label (:func:`dav2.pseudo_label.teacher.label_code`).
        batch: photographs per forward pass; not part of the fingerprint.
    """

    input_size: int = 518
    precision: Literal["fp32", "bf16"] = "fp32"
    codec: str = "png16"
    bits: int = 16
    flip_agreement: bool = False
    scale_agreement: bool = False
    embedding: bool = False
    code: str = ""
    batch: int = 16

    def fingerprinted(self) -> dict[str, object]:
        """The options that a receipt depends on."""
        return {name: value for name, value in asdict(self).items() if name != "batch"}


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to label: all that a worker on another machine needs to know, and small."""

    source: str
    """Folder of the image shards and their manifest."""
    out: str
    """Folder of the label shards."""
    shard: str
    """File name of the image shard, which is that of the label shard too."""
    images: str
    """sha256 of the image shard, as its manifest states it."""
    frames: int
    teacher: str
    """sha256 of the teacher's weights."""
    options: LabelOptions

    @property
    def fingerprint(self) -> str:
        """sha256 over everything that the label's bytes are a function of."""
        parts = {"format": 1, "teacher": self.teacher, "images": self.images}
        return _hash({**parts, "options": self.options.fingerprinted()})


def _hash(tree: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def receipt_name(shard: str) -> str:
    """File name of the receipt of a shard."""
    return f"{shard.removesuffix('.tar')}{RECEIPT}"


def rows_name(shard: str) -> str:
    """File name of the rows of a shard."""
    return f"{shard.removesuffix('.tar')}.parquet"


def read_receipt(out: str, shard: str) -> LabelReceipt | None:
    """The receipt of a label shard, or ``None`` where there is none that can be read."""
    try:
        return LabelReceipt.model_validate_json(storage.read(storage.join(out, receipt_name(shard))))
    except (FileNotFoundError, ValidationError):
        return None


def is_done(task: ShardTask) -> bool:
    """Whether the task's label shard is there: a receipt with its fingerprint, and files of the size it says."""
    receipt = read_receipt(task.out, task.shard)
    if receipt is None or receipt.fingerprint != task.fingerprint:
        return False
    try:
        size = storage.size(storage.join(task.out, task.shard))
        return size == receipt.label_bytes and storage.exists(storage.join(task.out, rows_name(task.shard)))
    except FileNotFoundError:
        return False


def all_tasks(source: str, out: str, teacher: str, options: LabelOptions) -> list[ShardTask]:
    """One task per image shard of ``source``, done or not, in the manifest's order."""
    return [
        ShardTask(source, out, shard, entry["sha256"], entry["frames"], teacher, options)
        for shard, entry in manifest.shard_table(source).items()
    ]


def plan_shards(source: str, out: str, teacher: str, options: LabelOptions) -> list[ShardTask]:
    """The shards of ``source`` that ``out`` holds no valid label shard for, in the manifest's order.

    What is there for these (a stale receipt, half of a label) is deleted, receipt first, so that nobody takes a new
    label tar for what an old receipt describes.

    Args:
        source: folder of image shards with ``manifest.parquet``, local or ``s3://``.
        out: folder of label shards, local or ``s3://``.
        teacher: sha256 of the teacher's weights.
        options: what shapes a label.
    """
    tasks = all_tasks(source, out, teacher, options)
    wanted = {task.shard for task in tasks}
    found = {name for name in storage.names(out) if name.endswith(RECEIPT)}
    with ThreadPoolExecutor(16) as pool:
        todo = [task for task, done in zip(tasks, pool.map(is_done, tasks), strict=True) if not done]
        gone = [shard for name in found if (shard := f"{name.removesuffix(RECEIPT)}.tar") not in wanted]
        list(pool.map(lambda shard: discard(out, shard), [task.shard for task in todo] + gone))
    return todo


def discard(out: str, shard: str) -> None:
    """Delete what is there of a label shard, the receipt first."""
    for name in (receipt_name(shard), rows_name(shard), shard):
        storage.remove(storage.join(out, name))
