"""Pseudo-labelling: a teacher looks at every unlabelled photograph once, and each label says where it came from.

The unit of work is one shard. A label shard lies beside nothing but its own rows and its receipt::

    artifacts/pseudo/<source>/<shard>.tar            <key>.disp.png, <key>.json
    artifacts/pseudo/<source>/<shard>.parquet        one row per label: offsets, range, quality
    artifacts/pseudo/<source>/<shard>.receipt.json   which teacher, which options, which pixels, which bytes
    artifacts/pseudo/<source>/manifest.parquet       all rows of all shards with a receipt

The receipt is written last and only if there is none, so a shard that has one is whole and is never labelled again.
Everything but the receipt's ``run`` part is a function of the image shard, the teacher's weights and the options.
"""

from __future__ import annotations

from dav2.pseudo_label.finish import finish
from dav2.pseudo_label.labeller import Labeller
from dav2.pseudo_label.precision import label_precision
from dav2.pseudo_label.receipts import LabelError, LabelOptions, ShardTask, plan_shards

__all__ = [
    "LabelError",
    "LabelOptions",
    "Labeller",
    "ShardTask",
    "finish",
    "label_precision",
    "plan_shards",
]
