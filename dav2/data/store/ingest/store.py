"""Shards in an object store, manifests in the project.

The manifest carries the hash of every shard, so DVC versions the data by a few small files and never holds a copy of
the shards. ``location.json`` beside the manifest says where they are; every reader follows it
(:func:`dav2.data.store.manifest.shard_path`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dav2.data import storage
from dav2.data.store.ingest.run import IngestSettings, SourceSettings, Summary, ingest
from dav2.data.store.ingest.workers import Progress
from dav2.data.store.manifest import DUPLICATES, MANIFEST, QUARANTINE, SUMMARY, point


def ingest_into(
    folder: Path,
    store: str | None,
    name: str,
    source: SourceSettings,
    params: IngestSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    forbidden: Sequence[storage.Location] | None = None,
) -> Summary:
    """Ingest a data set into a folder of the project, its shards into ``store`` where there is one.

    Args:
        folder: gets manifest, quarantine and summary, and without ``store`` the shards.
        store: ``s3://bucket/prefix``; the shards go to ``<store>/<group>/<name>``.

    The others are those of :func:`dav2.data.store.ingest.ingest`, with the same errors.
    """
    if store is None:
        point(folder, None)
        return ingest(name, source, params, folder, seed=seed, progress=progress, forbidden=forbidden)
    remote = storage.join(store, f"{source.group}/{name}")
    summary = ingest(name, source, params, remote, seed=seed, progress=progress, forbidden=forbidden)
    folder.mkdir(parents=True, exist_ok=True)
    storage.remove(folder / MANIFEST)
    for shard in folder.glob("*.tar"):
        shard.unlink()
    point(folder, remote)
    # The manifest last: a folder without one holds no data set.
    for file in (QUARANTINE, DUPLICATES, SUMMARY, MANIFEST):
        storage.write(folder / file, storage.read(storage.join(remote, file)))
    return summary
