"""Source → shards + manifest. Bad frames go to quarantine with a reason, duplicates are dropped and counted.

Shards are made by several processes, each complete in itself: killed at any moment, the next run keeps the shards
that have a fitting receipt and makes the rest. What comes out does not depend on the number of processes or on
interruptions. The manifest is written last; a directory without one holds no data set.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from dav2.data import storage
from dav2.data.raw.sources import open_source
from dav2.data.store.ingest import dedup
from dav2.data.store.ingest.plan import Plan, plan_shards
from dav2.data.store.ingest.shard import WORK, Limits, Receipt, Settings, ShardTask, drop, refusal
from dav2.data.store.ingest.workers import IngestError, Progress, make_shards
from dav2.data.store.manifest import (
    MANIFEST,
    SUMMARY,
    ManifestError,
    manifest_digest,
    shard_table,
    write_duplicates,
    write_manifest,
    write_quarantine,
)
from dav2.files import remove_unfinished


class SourceSettings(Protocol):
    """What :func:`ingest` reads of ``params.SourceParams``."""

    @property
    def reader(self) -> str:
        """Name of the reader."""
        ...

    @property
    def path(self) -> str:
        """Where the data set lies."""
        ...

    @property
    def group(self) -> str:
        """``synthetic``, ``unlabelled`` or ``benchmark``."""
        ...

    @property
    def val_share(self) -> float:
        """Share of scenes that is held out, in [0, 1]."""
        ...

    @property
    def options(self) -> dict[str, object]:
        """Options of the reader."""
        ...


class IngestSettings(Limits, Protocol):
    """What :func:`ingest` reads of ``params.IngestParams``."""

    @property
    def shard_frames(self) -> int:
        """Frames of a shard."""
        ...

    @property
    def workers(self) -> int:
        """Processes that read frames."""
        ...

    @property
    def jpeg_quality(self) -> int:
        """Quality, 50 to 100, of images that are coded anew."""
        ...


@dataclass(frozen=True)
class Summary:
    """What an ingestion did; ``summary.json`` holds the same.

    ``indexed`` = ``frames`` + ``quarantined`` + ``duplicates`` + ``forbidden``: every item is accounted for.
    ``forbidden`` counts frames left out because another manifest (a benchmark) holds the same picture.
    """

    source: str
    group: str
    licence: str
    indexed: int
    frames: int
    quarantined: int
    duplicates: int
    forbidden: int
    shards: int
    bytes: int
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""

    def as_dict(self) -> dict[str, object]:
        """As in ``summary.json``."""
        return asdict(self)


def ingest(
    name: str,
    source: SourceSettings,
    params: IngestSettings,
    out: storage.Location,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    forbidden: Sequence[storage.Location] | None = None,
) -> Summary:
    """Turn a data set into shards and a manifest under ``out``.

    Args:
        name: of the source; first part of every key.
        source: reader, path, group, share of scenes held out, options.
        params: shard size, workers, limits.
        out: local folder or ``s3://`` prefix. What it holds of an interrupted run is used.
        seed: decides which scenes are held out.
        progress: called with (frames done, frames in all) after each shard.
        forbidden: directories of manifests whose pictures must not come in, such as the benchmarks'.

    Raises:
        SourceError: no data, or an option that the reader does not know.
        IngestError: another process is writing to ``out``, or a worker died.
        OSError: ``out`` cannot be written.
    """
    # The reader checks the size in the header, before it decodes; its own option, where given, goes first.
    options = {"max_pixels": params.max_pixels, **source.options}
    opened = open_source(source.reader, source.path, name, options)
    # A benchmark is scored as it was published, equal pictures and all.
    others = [] if source.group == "benchmark" else list(forbidden or [])
    settings = Settings(
        source.reader,
        source.path,
        name,
        source.group,
        options,
        params.min_side,
        params.max_pixels,
        params.max_aspect,
        params.jpeg_quality,
        opened.licence,
        tuple(manifest_digest(directory) for directory in others),
    )
    plan = plan_shards(
        opened.index(), settings, shard_frames=params.shard_frames, val_share=source.val_share, seed=seed
    )
    with _only_writer(out):
        finished = _finished(out, plan.fingerprint)
        if finished is not None:
            return finished
        storage.remove(storage.join(out, MANIFEST))
        make_shards(plan.tasks, settings, opened, out, params.workers, progress or _silent)
        if source.group != "benchmark":
            _drop_duplicates(plan.tasks, out, others)
        summary = _publish(plan, settings, out, opened.notes())
        storage.remove_tree(storage.join(out, WORK))
    return summary


def read_summary(out: storage.Location) -> Summary:
    """The summary of a finished ingestion; ``FileNotFoundError`` where there is none.

    Raises:
        ManifestError: it is damaged.
    """
    path = storage.join(out, SUMMARY)
    try:
        return Summary(**json.loads(storage.read(path)))
    except (ValueError, TypeError, RecursionError) as error:
        raise ManifestError(f"{path} is damaged ({error}); ingest this source again") from None


def _finished(out: storage.Location, fingerprint: str) -> Summary | None:
    """The summary, if this very ingestion is complete and its shards are there."""
    if not (storage.exists(storage.join(out, MANIFEST)) and storage.exists(storage.join(out, SUMMARY))):
        return None
    with contextlib.suppress(FileNotFoundError, ManifestError):
        summary = read_summary(out)
        if summary.fingerprint != fingerprint:
            return None
        if all(storage.size(storage.join(out, shard)) == about["bytes"] for shard, about in shard_table(out).items()):
            return summary
    return None


@contextlib.contextmanager
def _only_writer(out: storage.Location) -> Iterator[None]:
    """Keep two local processes from writing to one directory. On S3 both would write equal bytes, so nothing breaks."""
    if storage.is_remote(out):
        yield
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        # The folder itself, so that no lock file becomes part of the data.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_unfinished(folder)
        yield
    except BlockingIOError:
        raise IngestError(f"another process is writing to {out}; wait for it, or end it") from None
    finally:
        os.close(handle)


def _drop_duplicates(tasks: list[ShardTask], out: storage.Location, others: Sequence[storage.Location]) -> None:
    """Write shards again without the pictures that an earlier frame or another manifest holds.

    What goes is computed from all frames, those dropped by an interrupted run included, so it comes out the same again.
    """
    elsewhere = dedup.hashes_of(others)
    hashes = dedup.as_array(h for task in tasks for _, h in _pixel_hashes(task, _receipt(task, out)))
    reasons = dedup.reasons(hashes, elsewhere)
    start = 0
    for task in tasks:
        receipt = _receipt(task, out)
        frames = _pixel_hashes(task, receipt)
        why = {key: reason for (key, _), reason in zip(frames, reasons[start:], strict=False) if reason}
        start += len(frames)
        if why.keys() != {row["key"] for row in receipt.dropped}:
            drop(receipt, why, out)


def _pixel_hashes(task: ShardTask, receipt: Receipt) -> list[tuple[str, str]]:
    """(key, pixel hash) of a shard's sound frames in the order of its items."""
    known = {row["key"]: row["pixel_sha256"] for row in receipt.rows + receipt.dropped}
    return [(item.key, known[item.key]) for item in task.items if item.key in known]


def _publish(plan: Plan, settings: Settings, out: storage.Location, notes: list[str]) -> Summary:
    """Write quarantine, duplicates, summary and, last, the manifest. Receipts are read one at a time, twice."""
    shards, splits, dropped, size = {}, Counter[str](), Counter[str](), 0
    for task in plan.tasks:
        receipt = _receipt(task, out)
        splits[task.split] += len(receipt.rows)
        dropped.update(row["reason"] for row in receipt.dropped)
        size += receipt.size
        if receipt.size:
            shards[task.shard] = {"sha256": receipt.sha256, "bytes": receipt.size, "frames": len(receipt.rows)}
    collided = [refusal(item, reason) for item, reason in plan.collisions]
    refused = (_receipt(task, out).quarantine for task in plan.tasks)
    quarantined = write_quarantine(out, itertools.chain([collided], refused))
    write_duplicates(out, (_receipt(task, out).dropped for task in plan.tasks))
    summary = Summary(
        source=settings.name,
        group=settings.group,
        licence=settings.licence,
        indexed=sum(len(task.items) for task in plan.tasks) + len(collided),
        frames=splits.total(),
        quarantined=quarantined,
        duplicates=dropped[dedup.REPEATED],
        forbidden=dropped[dedup.ELSEWHERE],
        shards=len(shards),
        bytes=size,
        splits={split: count for split, count in splits.items() if count},
        notes=notes,
        fingerprint=plan.fingerprint,
    )
    storage.write(storage.join(out, SUMMARY), json.dumps(summary.as_dict(), indent=1, sort_keys=True).encode())
    write_manifest(out, (_receipt(task, out).rows for task in plan.tasks), shards)
    return summary


def _receipt(task: ShardTask, out: storage.Location) -> Receipt:
    receipt = Receipt.load(out, task.shard)
    if receipt is None or receipt.fingerprint != task.fingerprint:
        raise IngestError(f"{out}: the receipt of {task.shard} went missing while ingesting; start again, it resumes")
    return receipt


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""
