"""From a data set in its public layout to shards and a manifest.

``plan`` cuts the source's items into shards, ``shard`` makes one of them, ``workers`` makes them all in several
processes, ``dedup`` finds equal pictures, ``run`` puts it together and writes the manifest, ``store`` puts the
shards into a bucket.
"""

from __future__ import annotations

from dav2.data.store.ingest.run import Summary, ingest, read_summary
from dav2.data.store.ingest.store import ingest_into
from dav2.data.store.ingest.workers import IngestError

__all__ = ["IngestError", "Summary", "ingest", "ingest_into", "read_summary"]
