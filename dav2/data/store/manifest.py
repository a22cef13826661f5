"""``manifest.parquet``: one row per frame — what it is, where its bytes lie, and what it looks like.

The file also carries size, hash and frame count of every shard, so its digest stands for all data below the
directory. It is written last: a directory without it holds no data set.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from dav2.data import storage
from dav2.maps import LAYERS

if TYPE_CHECKING:  # takes seconds to import, and those who only write manifests never need it
    import pandas as pd

MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
DUPLICATES = "duplicates.parquet"
SUMMARY = "summary.json"
LOCATION = "location.json"
"""Beside a local manifest whose shards lie in an object store: where."""
ROW_GROUP = 10_000

_TEXT = ("key", "source", "group", "scene", "split", "shard")
_REAL = ("fx", "fy", "cx", "cy")
_LOOKS = ("depth_min", "depth_median", "depth_max", "valid", "sky", "brightness", "contrast", "sharpness")

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT),
        ("offset_image", pa.int64()),
        ("size_image", pa.int64()),
        ("ext_image", pa.string()),
        ("offset_depth", pa.int64()),
        ("size_depth", pa.int64()),
        ("offset_json", pa.int64()),
        ("size_json", pa.int64()),
        *((f"{what}_{layer}", pa.int64()) for layer in LAYERS for what in ("offset", "size")),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("metric", pa.bool_()),
        *((name, pa.float64()) for name in _REAL),
        ("sha256", pa.string()),
        ("pixel_sha256", pa.string()),
        *((name, pa.float32()) for name in _LOOKS),
        ("licence", pa.string()),
    ]
)
"""Columns of a manifest.

``offset_*``/``size_*`` are bytes in the shard; ``size_depth`` is 0 where there is no depth, and ``size_<layer>``
where the frame has no such layer (:data:`dav2.maps.LAYERS`). ``fx`` … ``cy`` are
pixels, nan where unknown. ``sha256`` is of the stored image bytes, ``pixel_sha256`` of the decoded pixels (what
makes two frames the same picture). ``depth_*`` are metres, or the scene's unit where ``metric`` is false. ``valid``
is the share of pixels whose depth is known, sky counted as known; ``sky`` the share of sky; nan without depth.
``brightness`` and ``contrast`` are mean and standard deviation of the grey values (0–255), ``sharpness`` the
variance of their Laplacian at 256 px short side.
"""

_QUARANTINE = ("key", "scene", "path", "reason")
_DUPLICATES = ("key", "scene", "split", "shard", "reason", "pixel_sha256")
QUARANTINE_SCHEMA = pa.schema([(name, pa.string()) for name in _QUARANTINE])
DUPLICATES_SCHEMA = pa.schema([(name, pa.string()) for name in _DUPLICATES])


class ManifestError(ValueError):
    """A directory without a usable manifest; the message says what to run."""


def read_table(directory: storage.Location, columns: list[str] | None = None) -> pa.Table:
    """The manifest as an Arrow table; see :data:`SCHEMA`. ``columns`` limits what is read.

    Raises:
        ManifestError: absent, damaged, or of another layout.
    """
    path = storage.join(directory, MANIFEST)
    if not storage.exists(path):
        raise ManifestError(f"{path} is missing; run 'dav2 data ingest' for this source, or 'dvc repro'")
    try:
        return pq.read_table(_source(path), columns=columns, memory_map=not storage.is_remote(path))
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise ManifestError(f"{path} cannot be read: {error}") from error


def read_manifest(directory: storage.Location) -> pd.DataFrame:
    """The manifest as a DataFrame with the columns of :data:`SCHEMA`, in shard order."""
    table = read_table(directory)
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise ManifestError(
            f"{storage.join(directory, MANIFEST)} lacks the columns {missing}; ingest this source again"
        )
    return table.to_pandas()


def read_quarantine(directory: storage.Location) -> pd.DataFrame:
    """Frames that were left out, with columns key, scene, path, reason; empty when there are none."""
    path = storage.join(directory, QUARANTINE)
    if not storage.exists(path):
        return QUARANTINE_SCHEMA.empty_table().to_pandas()
    return pq.read_table(_source(path)).to_pandas()


class ShardEntry(TypedDict):
    """What the manifest says of a shard."""

    sha256: str
    bytes: int
    frames: int


def shard_table(directory: storage.Location) -> dict[str, ShardEntry]:
    """``{"sha256", "bytes", "frames"}`` of every shard by name, as kept in the manifest."""
    path = storage.join(directory, MANIFEST)
    if not storage.exists(path):
        raise ManifestError(f"{path} is missing; run 'dav2 data ingest' for this source, or 'dvc repro'")
    metadata = pq.read_schema(_source(path)).metadata or {}
    shards: dict[str, ShardEntry] = json.loads(metadata.get(b"shards", b"{}"))
    return shards


def shard_path(directory: storage.Location, shard: str) -> str:
    """Where a shard of ``directory`` lies: in it, or where its ``location.json`` says.

    Raises:
        ManifestError: ``location.json`` is damaged.
    """
    if storage.is_remote(directory):
        return storage.join(directory, shard)
    pointer = Path(directory, LOCATION).absolute()
    return storage.join(_pointed(str(pointer)) or directory, shard)


@functools.lru_cache(1024)
def _pointed(pointer: str) -> str | None:
    """The store that a pointer names. Kept, because every frame asks; :func:`point` forgets it."""
    try:
        location = json.loads(Path(pointer).read_text(encoding="utf-8"))["shards"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{pointer} is damaged ({error}); ingest this source again") from error
    return str(location)


def point(directory: Path, shards: str | None) -> None:
    """Say where the shards of a local directory lie; ``None`` for in it."""
    if shards is None:
        storage.remove(directory / LOCATION)
    else:
        storage.write(directory / LOCATION, json.dumps({"shards": shards}).encode())
    _pointed.cache_clear()


def manifest_digest(directory: storage.Location) -> str:
    """sha256 of the manifest file; equal digests mean equal data, shards included."""
    path = storage.join(directory, MANIFEST)
    if not storage.exists(path):
        raise ManifestError(f"{path} is missing; run 'dav2 data ingest' for this source, or 'dvc repro'")
    return hashlib.sha256(storage.read(path)).hexdigest()


def write_manifest(
    directory: storage.Location, batches: Iterable[list[dict[str, object]]], shards: Mapping[str, Mapping[str, object]]
) -> int:
    """Write ``manifest.parquet`` from batches of rows, holding one row group in memory; returns the number of rows."""
    schema = SCHEMA.with_metadata({"shards": json.dumps(shards, sort_keys=True)})
    return _write(storage.join(directory, MANIFEST), schema, batches)


def write_quarantine(directory: storage.Location, batches: Iterable[list[dict[str, object]]]) -> int:
    """Write ``quarantine.parquet``; returns the number of rows."""
    return _write(storage.join(directory, QUARANTINE), QUARANTINE_SCHEMA, batches)


def write_duplicates(directory: storage.Location, batches: Iterable[list[dict[str, object]]]) -> int:
    """Write ``duplicates.parquet``, the frames left out because the same picture is elsewhere; returns their number."""
    return _write(storage.join(directory, DUPLICATES), DUPLICATES_SCHEMA, batches)


def _write(path: str, schema: pa.Schema, batches: Iterable[list[dict[str, object]]]) -> int:
    total = 0
    # As columns: waiting rows take a tenth of what they take as dictionaries.
    pending = schema.empty_table()
    with storage.atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            pending = pa.concat_tables([pending, pa.Table.from_pylist(batch, schema)])
            total += len(batch)
            while len(pending) >= ROW_GROUP:
                writer.write_table(pending[:ROW_GROUP].combine_chunks())
                pending = pending[ROW_GROUP:]
        if len(pending):
            writer.write_table(pending.combine_chunks())
    return total


def _source(path: str) -> object:
    return io.BytesIO(storage.read(path)) if storage.is_remote(path) else path
