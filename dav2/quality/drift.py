"""Drift between two versions of a data set: a table and a plot of what changed in the manifest's columns.

Two numbers per column: the distance of the means in standard deviations of the old version, and the Kolmogorov–Smirnov
statistic (the largest gap between the two cumulative distributions, 0 … 1), which also sees a change of shape.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dav2.data.storage import Location
from dav2.data.store.manifest import read_manifest
from dav2.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "width", "height", "depth_min", "depth_median", "depth_max", "valid", "sky", "brightness", "contrast", "sharpness",
)  # fmt: skip


def drift(old: Location, new: Location) -> pd.DataFrame:
    """Compare two manifest directories.

    Returns:
        One row per column of :data:`COLUMNS` that has values in both: column, old_mean, new_mean, shift (in standard
        deviations of the old version; 0 where both are constant and equal), ks (0 … 1), largest ``ks`` first.
        ``attrs`` holds frames_old, frames_new, added, removed and changed (keys whose image has other bytes).

    Raises:
        ManifestError: a directory without a usable manifest.
    """
    import pandas as pd

    before, after = read_manifest(old), read_manifest(new)
    rows = [_row(column, before[column], after[column]) for column in COLUMNS]
    table = pd.DataFrame([row for row in rows if row is not None]).sort_values("ks", ascending=False, kind="stable")
    hashes_before = before.set_index("key")["sha256"]
    hashes_after = after.set_index("key")["sha256"]
    kept = hashes_before.index.intersection(hashes_after.index)
    table.attrs.update(
        frames_old=len(before),
        frames_new=len(after),
        added=len(after) - len(kept),
        removed=len(before) - len(kept),
        changed=int((hashes_before.loc[kept] != hashes_after.loc[kept]).sum()),
    )
    return table.reset_index(drop=True)


def _row(column: str, before: pd.Series, after: pd.Series) -> dict[str, float | str] | None:
    from scipy.stats import ks_2samp

    first, second = _values(before), _values(after)
    if not len(first) or not len(second):
        return None
    distance, spread = float(second.mean() - first.mean()), float(first.std())
    shift = distance / spread if spread > 0 else (0.0 if distance == 0 else float(np.sign(distance) * np.inf))
    return {
        "column": column,
        "old_mean": float(first.mean()),
        "new_mean": float(second.mean()),
        "shift": shift,
        "ks": float(ks_2samp(first, second, method="asymp").statistic),
    }


def _values(column: pd.Series) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.sort(column.dropna().to_numpy(np.float64))
    return values[np.isfinite(values)]


def plot(old: Location, new: Location, path: Path) -> None:
    """Write the distributions of every column in both versions as a PNG."""
    from matplotlib.figure import Figure

    before, after = read_manifest(old), read_manifest(new)
    columns = [column for column in COLUMNS if len(_values(before[column])) and len(_values(after[column]))]
    figure = Figure(figsize=(12, 2.4 * -(-len(columns) // 3)), layout="constrained")
    for index, column in enumerate(columns):
        axes = figure.add_subplot(-(-len(columns) // 3), 3, index + 1)
        samples = [_values(before[column]), _values(after[column])]
        edges = np.histogram_bin_edges(np.concatenate(samples), bins=40)
        for values, label, colour in zip(samples, ("old", "new"), ("#6b7280", "#2563a8"), strict=True):
            axes.hist(
                values,
                edges.tolist(),
                weights=np.full(len(values), 1 / len(values)),
                label=label,
                color=colour,
                alpha=0.6,
            )
        axes.set_title(column, fontsize=10)
        axes.set_ylabel("share of frames", fontsize=8)
    figure.axes[0].legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_whole(path, buffer.getvalue())
