"""The tables that a gate checks: one row per frame of a group, and one row per source.

Great Expectations validates tables, never images: everything that can be said of a picture was measured at ingestion
and stands in the manifests. What is compared across manifests (a label against the photograph it was made from) is
joined here, so that an expectation only ever looks at one column or at two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dav2.data.raw.sources.cleaning import load_rules
from dav2.data.store.manifest import MANIFEST, manifest_digest, read_manifest, read_quarantine
from dav2.params import Params, SourceParams

if TYPE_CHECKING:
    import pandas as pd

GateGroup = Literal["synthetic", "real", "unlabelled", "benchmark", "pseudo"]
# What the suites look at; label manifests also hold embeddings, which are large.
LABEL_COLUMNS = [
    *("key", "shard", "offset_label", "size_label", "codec", "bits", "vmin", "vmax", "height", "width"),
    *("teacher", "image_sha256", "range", "saturated", "flip_agreement"),
]

GROUPS: tuple[GateGroup, ...] = ("synthetic", "real", "unlabelled", "benchmark", "pseudo")


class QualityError(RuntimeError):
    """The gate cannot run; the message says why and, where something is missing, which command makes it."""


@dataclass(frozen=True)
class Tables:
    """What a gate looks at.

    Attributes:
        frames: one row per frame (or label), in the order of the sources in ``params.yaml``.
        sources: one row per source: source, frames, quarantined, quarantined_share, scenes, licence, bytes; for
            pseudo-labels also unlabelled (photographs without a label).
        digests: source → digest of its manifest.
        reasons: source → the most frequent reasons in its quarantine, as text.
        promised: source → how many frames its authors count, as text; to compare with, never asserted.
    """

    frames: pd.DataFrame
    sources: pd.DataFrame
    digests: dict[str, str]
    reasons: dict[str, str]
    promised: dict[str, str]

    @property
    def digest(self) -> str:
        """One sha256 for all manifests of the group."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def group_sources(group: GateGroup, params: Params) -> list[str]:
    """Data sets whose manifests a group's gate judges, in the order of ``params.yaml``; they may be none."""
    return params.pseudo_label.sources if group == "pseudo" else params.group(group)


def read_tables(group: GateGroup, root: Path, params: Params) -> Tables:
    """Read the manifests of ``group`` below ``root`` and derive what the suites need.

    Raises:
        QualityError: labels are not there.
        ManifestError: the manifest of a source is not there or cannot be used.
    """
    import pandas as pd

    names = group_sources(group, params)
    frames, rows, digests, reasons = [], [], {}, {}
    for name in names:
        shards, labels = root / params.shards(name), root / params.labels(name)
        if group == "pseudo":
            table, unlabelled = _labels(labels, shards)
            row, reasons[name] = _source_row(name, labels, table)
            row["unlabelled"] = unlabelled
        else:
            table = _frames(shards)
            row, reasons[name] = _source_row(name, shards, table)
            row["licence"] = ", ".join(sorted({str(licence) for licence in table["licence"].dropna()}))
        digests[name] = manifest_digest(labels if group == "pseudo" else shards)
        frames.append(table.assign(source=name, reader=params.data_sets[name].reader))
        rows.append(row)
    promised = {} if group == "pseudo" else {name: _promised(params.data_sets[name]) for name in names}
    return Tables(pd.concat(frames, ignore_index=True), pd.DataFrame(rows), digests, reasons, promised)


def _promised(source: SourceParams) -> str:
    """What the cleaning rules of a source say its authors count."""
    rules = load_rules(str(source.options.get("rules") or source.reader))
    return "; ".join(f"{promise.frames:,} {promise.subset}" for promise in rules.promised)


def _frames(directory: Path) -> pd.DataFrame:
    """Manifest of one source with ``pixels``, ``side`` (the shorter one) and ``aspect`` (longer over shorter)."""
    import numpy as np

    table = read_manifest(directory)
    width, height = table["width"].to_numpy(float), table["height"].to_numpy(float)
    longer, shorter = np.maximum(width, height), np.minimum(width, height)
    return table.assign(pixels=width * height, aspect=longer / np.maximum(shorter, 1.0), side=shorter)


def _labels(labels_at: Path, shards_at: Path) -> tuple[pd.DataFrame, int]:
    """Label manifest joined with the photographs it was made from, and how many photographs have no label.

    Adds ``photograph`` (whether the source's manifest has that key) and ``same_image`` (whether the photograph still
    has the bytes that were labelled).
    """
    import pandas as pd

    if not (labels_at / MANIFEST).is_file():
        raise QualityError(f"{labels_at / MANIFEST} is missing; run 'dvc repro pseudo_label', which makes it")
    labels = pd.read_parquet(labels_at / MANIFEST, columns=LABEL_COLUMNS)
    photographs = read_manifest(shards_at)[["key", "sha256", "scene"]]
    table = labels.merge(photographs, on="key", how="left", sort=False)
    unlabelled = int((~photographs["key"].isin(labels["key"])).sum())
    known = table["sha256"].notna()
    return table.assign(photograph=known, same_image=known & (table["image_sha256"] == table["sha256"])), unlabelled


def _source_row(name: str, directory: Path, table: pd.DataFrame) -> tuple[dict[str, object], str]:
    bad = read_quarantine(directory)["reason"]
    read = len(table) + len(bad)
    row = {
        "source": name,
        "frames": len(table),
        "scenes": int(table["scene"].nunique()),
        "quarantined": len(bad),
        "quarantined_share": len(bad) / read if read else 0.0,
    }
    top = bad.value_counts().head(3)
    return row, "; ".join(f"{count} × {reason}" for reason, count in top.items())
