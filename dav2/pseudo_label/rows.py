"""The table that goes with labels: one row per photograph, per shard and for the whole source."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

FIELD_OF_CODEC = {"png16": "disp.png", "jpegls12": "disp.jls", "jxl12": "disp.jxl", "normals": "normals.zst"}
"""Field name of a label's member in its shard."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset_label", pa.int64()),
        ("size_label", pa.int64()),
        ("codec", pa.string()),
        ("bits", pa.int32()),
        ("vmin", pa.float64()),
        ("vmax", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("teacher", pa.string()),
        ("image_sha256", pa.string()),
        ("range", pa.float32()),
        ("saturated", pa.float32()),
        ("sharpness", pa.float32()),
        ("flip_agreement", pa.float32()),
        ("scale_agreement", pa.float32()),
        ("embedding", pa.list_(pa.float32())),
    ]
)
"""Columns of a label manifest.

``offset_label``/``size_label``: bytes of the coded label in ``shard``. ``codec``, ``bits``, ``vmin``, ``vmax``: how to
decode it (:func:`dav2.data.store.labels.decode_label`); normals have no ``vmin`` and ``vmax``. ``height``, ``width``:
of the label, which is the teacher's resolution, not the photograph's. ``teacher``: sha256 of its weights.
``image_sha256``: of the photograph's stored bytes. ``range`` … ``scale_agreement``: :mod:`dav2.pseudo_label.columns`;
null where it was not asked for, and ``saturated`` of normals.
``embedding``: 32 values of unit length that say what the photograph shows; null where it was not asked for.
"""


def to_parquet(rows: list[dict[str, object]]) -> bytes:
    """The rows of one shard as a Parquet file; equal rows give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def join_parquet(parts: Iterable[bytes], file: object) -> int:
    """Write the rows of many shards into one Parquet file, a row group each; returns the number of rows."""
    total = 0
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(io.BytesIO(part))
            writer.write_table(table)
            total += table.num_rows
    return total
