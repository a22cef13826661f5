"""Which photographs of a shard go through the teacher together.

Batches are planned from the manifest before anything is decoded, so that they are a function of the shard alone: which
neighbours a photograph has changes the rounding of its label, and neither timing nor a restart may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from dav2.data import storage
from dav2.data.store.manifest import MANIFEST
from dav2.pseudo_label.receipts import LabelError, ShardTask

_COLUMNS = ["shard", "key", "offset_image", "size_image", "width", "height", "sha256"]


class PhotoRow(TypedDict):
    """What a row of the image manifest says of a photograph: its place in the shard in bytes, its sides in pixels."""

    key: str
    offset_image: int
    size_image: int
    width: int
    height: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Photo:
    """One row of the image manifest: where a photograph lies and which bytes it has."""

    key: str
    offset: int
    size: int
    width: int
    height: int
    sha256: str

    @classmethod
    def from_row(cls, row: PhotoRow) -> Photo:
        """From a row of the manifest."""
        place = row["offset_image"], row["size_image"]
        return cls(row["key"], *place, row["width"], row["height"], row["sha256"])


def read_photos(task: ShardTask) -> list[Photo]:
    """The photographs of a task's shard, in the order in which they lie in it.

    Raises:
        LabelError: the shard was rewritten since the task was planned.
    """
    path = storage.join(task.source, MANIFEST)
    table = storage.retried(lambda: _read_rows(path, task.shard), f"reading {path}")
    photos = [Photo.from_row(row) for row in table.to_pylist()]
    if len(photos) != task.frames:
        raise LabelError(
            f"{task.source}: the manifest lists {len(photos)} photographs in {task.shard}, but {task.frames} were "
            "planned; the shards were rewritten meanwhile, start again"
        )
    return sorted(photos, key=lambda photo: photo.offset)


def _read_rows(path: str, shard: str) -> pa.Table:
    """Manifest rows of one shard; of a large manifest only the row groups that hold it are read."""
    with storage.filesystem(path).open(path) if storage.is_remote(path) else Path(path).open("rb") as file:
        return pq.read_table(file, columns=_COLUMNS, filters=[("shard", "==", shard)])


def plan_batches(photos: Sequence[Photo], shape_of: Callable[[Photo], object], batch: int) -> list[list[int]]:
    """Group photographs of equal network shape, which ``shape_of`` tells, into batches of at most ``batch``.

    A photograph joins the open batch of its shape; full batches come in the order of their last photograph, what is
    left over at the end in the order of its first. So few labels wait for their turn to be written.

    Returns:
        Indices into ``photos``; every index once.
    """
    open_batches: dict[object, list[int]] = {}
    planned: list[list[int]] = []
    for index, photo in enumerate(photos):
        shape = shape_of(photo)
        members = open_batches.setdefault(shape, [])
        members.append(index)
        if len(members) == batch:
            planned.append(open_batches.pop(shape))
    return planned + sorted(open_batches.values())
