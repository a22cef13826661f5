"""Keep a budget of the most informative photographs: those the teacher is unsure of, spread over what there is to see.

The paper leaves open which of 62M photographs a student needs. Two things are known of each for the price of the label:
how much the teacher contradicts itself (flip and scale agreement), and what the photograph shows (its embedding). The
choice is greedy farthest-point sampling on the embeddings (k-centre, Gonzalez 1985), with distances weighted by
disagreement::

    next = argmax_i  u_i^(1−c) · d_i^c        u: rank of disagreement in (0, 1], d: distance to the nearest one chosen

``c`` = 1 is coverage alone, ``c`` = 0 disagreement alone. The most contradictory labels are more often wrong than
instructive; a share of them is left out first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dav2.data import ranges, storage
from dav2.data.store.manifest import MANIFEST
from dav2.data.store.shards import ShardWriter
from dav2.pseudo_label import rows
from dav2.pseudo_label.receipts import LabelError

BLOCK = 20_000
"""Photographs among which one choice is made; the budget is shared out over blocks, so that time grows linearly."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How to select.

    Attributes:
        budget: photographs to keep.
        coverage: weight ``c`` of spread against disagreement, 0 … 1.
        discard: share of the photographs, those with the greatest disagreement, that is never chosen.
    """

    budget: int
    coverage: float = 0.5
    discard: float = 0.02


def disagreement(table: pd.DataFrame) -> NDArray[np.float64]:
    """1 − agreement, 0 … 2: the mean over those of flip and scale agreement that were recorded.

    Raises:
        LabelError: neither was recorded.
    """
    recorded = [name for name in ("flip_agreement", "scale_agreement") if table[name].notna().all()]
    if not recorded:
        raise LabelError("selection needs flip_agreement or scale_agreement; switch one on and label again")
    return 1.0 - table[recorded].mean(axis=1).to_numpy(np.float64)


def select(table: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The chosen rows of a label manifest, in its order; a function of table and choice alone.

    Raises:
        LabelError: agreement or embeddings were not recorded.
    """
    if choice.budget >= len(table):
        return table
    if table["embedding"].isna().any():
        raise LabelError("selection needs embeddings; set pseudo_label.embedding and label again")
    wrong = disagreement(table)
    kept = np.argsort(wrong, kind="stable")[: len(table) - int(choice.discard * len(table))]
    kept.sort()
    blocks = np.array_split(kept, -(-len(kept) // BLOCK))
    ends = np.cumsum([len(block) for block in blocks])
    shares = np.diff(np.round(ends * min(choice.budget, len(kept)) / len(kept)).astype(int), prepend=0)
    vectors = np.stack(table["embedding"].tolist()).astype(np.float32)
    chosen = [
        block[spread(vectors[block], wrong[block], int(share), choice.coverage)]
        for block, share in zip(blocks, shares, strict=True)
    ]
    return table.iloc[np.sort(np.concatenate(chosen))]


def spread(vectors: NDArray[np.float32], wrong: NDArray[np.float64], budget: int, coverage: float) -> NDArray[np.int64]:
    """Greedy choice of ``budget`` indices by the formula of this module.

    Args:
        vectors: (n, d), unit length; distance is 1 − cosine.
        wrong: disagreement (n,); only its order counts.
    """
    rank = np.empty(len(wrong))
    rank[np.argsort(wrong, kind="stable")] = np.arange(1, len(wrong) + 1) / len(wrong)
    worth = rank ** (1.0 - coverage)
    nearest = np.full(len(wrong), 2.0)
    free = np.ones(len(wrong), bool)
    chosen = np.empty(budget, np.int64)
    for turn in range(budget):
        score = np.where(free, worth * nearest**coverage, -1.0)
        chosen[turn] = best = int(np.argmax(score))
        free[best] = False
        nearest = np.minimum(nearest, np.maximum(1.0 - (vectors @ vectors[best]).astype(np.float64), 0.0))
    return chosen


def write_selection(
    labels: Mapping[str, str], out: str, choose: Callable[[pd.DataFrame], pd.DataFrame]
) -> dict[str, int]:
    """Copy the chosen labels into folders of the same layout, which training takes as it takes all of them.

    Args:
        labels: source → folder of its label shards with their manifest; the choice is made over all of them together.
        out: folder to write; a folder for each source holds label shards and a manifest, written last.
        choose: from the label manifest of all sources to the rows to keep, in order: :func:`select` with a choice.

    Returns:
        Number of labels kept of each source.

    Raises:
        LabelError: none of a source's photographs was chosen, or agreement or embeddings were not recorded.
    """
    tables = [
        pd.read_parquet(io.BytesIO(storage.read(storage.join(folder, MANIFEST)))).assign(source=source)
        for source, folder in labels.items()
    ]
    chosen = choose(pd.concat(tables, ignore_index=True))
    kept = {}
    for source, folder in labels.items():
        rows_of_source = chosen[chosen["source"] == source].drop(columns="source")
        if rows_of_source.empty:
            raise LabelError(f"the selection keeps no photograph of {source}; raise its budget or leave the source out")
        kept[source] = _copy(rows_of_source, folder, storage.join(out, source))
    return kept


def _copy(table: pd.DataFrame, labels: str, out: str) -> int:
    parts = []
    for shard, part in table.groupby("shard", sort=True):
        requests = [(storage.join(labels, str(shard)), r.offset_label, r.size_label) for r in part.itertuples()]
        moved = []
        with ShardWriter(storage.join(out, str(shard))) as writer:
            for row, data in zip(part.to_dict("records"), ranges.read_ranges(requests), strict=True):
                field = rows.FIELD_OF_CODEC[row["codec"]]
                place = writer.add(row["key"], {field: data})[field]
                moved.append({**row, "offset_label": place.offset, "size_label": place.size})
        parts.append(rows.to_parquet(moved))
    with storage.atomic_file(storage.join(out, MANIFEST)) as file:
        return rows.join_parquet(parts, file)
