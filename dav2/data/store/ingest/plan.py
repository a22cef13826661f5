"""Which item goes into which shard: fixed before anything is read, so it cannot depend on who reads what when."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dav2.data import storage
from dav2.data.raw.sources import Item, reader_module
from dav2.data.store.ingest.shard import Settings, ShardTask
from dav2.imports import code_digest

SPLITS = ("test", "val", "train")
"""In this order duplicates are looked for, so that of two equal pictures the one held out stays held out."""


class Plan(NamedTuple):
    """Shards to make, and items that cannot be part of any.

    ``collisions`` holds (item, reason) of items whose key another item took first.
    """

    tasks: list[ShardTask]
    collisions: list[tuple[Item, str]]
    fingerprint: str


def plan_shards(items: list[Item], settings: Settings, *, shard_frames: int, val_share: float, seed: int) -> Plan:
    """Cut the items of each split, in the order of the source's index, into shards of ``shard_frames``.

    What has no split of its own is held out by scene or trained on; of a benchmark, all of it is judged by.
    """
    unique, collisions = _without_collisions(items)
    held_out = val_scenes({item.scene for item in unique if not item.split}, val_share, f"{seed}/{settings.name}")
    usual = "test" if settings.group == "benchmark" else "train"
    tasks = []
    for split in SPLITS:
        chosen = [i for i in unique if (i.split or ("val" if i.scene in held_out else usual)) == split]
        for number, start in enumerate(range(0, len(chosen), shard_frames)):
            members = tuple(chosen[start : start + shard_frames])
            shard = f"{split}-{number:06d}.tar"
            tasks.append(ShardTask(shard, split, members, _fingerprint(shard, members, settings)))
    whole = hashlib.sha256("".join(task.fingerprint for task in tasks).encode()).hexdigest()
    return Plan(tasks, collisions, whole)


def val_scenes(scenes: Iterable[str], share: float, salt: str) -> set[str]:
    """Scenes to hold out: those whose hash, seen as a number in [0, 1), lies below ``share``.

    A scene's side does not change when others come or go, but for one rule that small data sets need: with a share
    above 0 and two scenes or more, at least one scene is held out and at least one is not.
    """
    place = {s: int.from_bytes(hashlib.sha256(f"{salt}/{s}".encode()).digest()[:8]) / 2**64 for s in scenes}
    ordered = sorted(place, key=lambda s: place[s])
    if share <= 0 or len(ordered) < 2:
        return set()
    chosen = [s for s in ordered if place[s] < share]
    return set(ordered[: min(max(1, len(chosen)), len(ordered) - 1)])


def _without_collisions(items: list[Item]) -> tuple[list[Item], list[tuple[Item, str]]]:
    first: dict[str, Item] = {}
    collisions = []
    for item in items:
        other = first.setdefault(item.key, item)
        if other is not item:
            collisions.append((item, f"its key is also that of {' '.join(other.paths)}"))
    return list(first.values()), collisions


def _fingerprint(shard: str, items: tuple[Item, ...], settings: Settings) -> str:
    described: list[object] = [_code(settings.reader), shard, asdict(settings)]
    described += [[asdict(item), [_stamp(settings.path, path) for path in item.paths]] for item in items]
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


@cache
def _code(reader: str) -> str:
    """Digest of the code that makes shards of what ``reader`` reads; finished shards of other code are made again."""
    return code_digest(["dav2.data.store.ingest.shard", reader_module(reader)])


def _stamp(root: str, path: str) -> str:
    """Size and time of a local file (of the archive, for a member), so that a changed file is read again."""
    if storage.is_remote(root):
        return ""
    try:
        base = Path(root)
        status = (base if base.is_file() else base / path.partition("!/")[0]).stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
