"""Whether larger means nearer in labels, as it should: asked of a rule that everybody's photographs mostly follow."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from dav2.data.storage import join, read
from dav2.data.store.manifest import MANIFEST
from dav2.maps import Quantity
from dav2.pseudo_label.gallery import read_label

LOOKED_AT = 32
"""Labels that are looked at, spread over the manifest."""
SUSPICIOUS = -0.1
"""Mean rank correlation below which labels are taken for inverted; right ones of the sample have about +0.5."""


def correlation_with_rows(out: str) -> float | None:
    """Mean Spearman correlation of a label's rows (their medians) with how low they lie in the photograph.

    What is lower in a photograph is nearer more often than not, so labels in which larger is nearer give more than 0.

    Args:
        out: folder of finished labels.

    Returns:
        a number from −1 to 1; ``None`` where no label varies from row to row, or labels do not say what is near.
    """
    table = pd.read_parquet(io.BytesIO(read(join(out, MANIFEST))))
    if (table["codec"] == Quantity.NORMALS).any():
        return None
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, min(LOOKED_AT, len(table))).astype(int))]
    found = []
    for _, row in chosen.iterrows():
        medians = np.median(read_label(out, row), axis=1)
        if len(medians) > 2 and np.ptp(medians) > 0:
            found.append(float(spearmanr(np.arange(len(medians)), medians).statistic))
    return float(np.mean(found)) if found else None


def warning(out: str, declared: str) -> str | None:
    """A sentence where labels seem to be inverted; ``declared`` is what their teacher is said to predict."""
    found = correlation_with_rows(out)
    if found is None or found >= SUSPICIOUS:
        return None
    return (
        f"labels in {out} grow towards the top of the photographs (rank correlation {found:+.2f} with the row; nearer "
        f"things lie lower as a rule). If the teacher's maps grow with distance, its quantity is not {declared}: say "
        "depth, log_depth or metres"
    )
