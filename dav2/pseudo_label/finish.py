"""The manifest over all label shards of a source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dav2.data import storage
from dav2.data.store.manifest import MANIFEST
from dav2.documents import LabelReceipt
from dav2.files import remove_unfinished
from dav2.pseudo_label import rows
from dav2.pseudo_label.receipts import RECEIPT, LabelError, read_receipt, rows_name


@dataclass(frozen=True, slots=True)
class Summary:
    """What a source's labels come to."""

    shards: int
    labels: int
    bytes: int
    seconds: float
    """Time that workers spent on all shards together."""


def receipts(out: str) -> list[LabelReceipt]:
    """Receipts of all label shards in ``out``, in the order of their names."""
    names = [name for name in storage.names(out) if name.endswith(RECEIPT)]
    found = [read_receipt(out, name.removesuffix(RECEIPT)) for name in names]
    return [receipt for receipt in found if receipt is not None]


def finish(out: str) -> Summary:
    """Write ``manifest.parquet`` over every label shard of ``out`` that has a receipt, one shard in memory at a time.

    Nobody may be labelling into ``out`` any more: what workers that were killed have left unfinished is removed.

    Raises:
        LabelError: the rows or the label tar of a shard are not those that its receipt describes.
    """
    if not storage.is_remote(out):
        remove_unfinished(Path(out))
    done = receipts(out)
    with storage.atomic_file(storage.join(out, MANIFEST)) as file:
        labels = rows.join_parquet(_checked_rows(out, done), file)
    spent = sum(float(receipt.run.get("seconds", 0.0)) for receipt in done)
    return Summary(len(done), labels, sum(receipt.label_bytes for receipt in done), spent)


def _checked_rows(out: str, done: list[LabelReceipt]) -> Iterator[bytes]:
    for receipt in done:
        path = storage.join(out, rows_name(receipt.shard))
        data = storage.read(path)
        if hashlib.sha256(data).hexdigest() != receipt.rows_sha256:
            raise LabelError(f"{path} is not what its receipt describes; delete the receipt and run the stage again")
        size = storage.size(storage.join(out, receipt.shard))
        if size != receipt.label_bytes:
            raise LabelError(
                f"{storage.join(out, receipt.shard)} has {size} bytes, its receipt says {receipt.label_bytes}; "
                "delete the receipt and run the stage again"
            )
        yield data
