"""Labels beside their photographs: the best, the worst and some at random, as one picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dav2.data import images
from dav2.data.storage import join, read
from dav2.data.store.labels import decode_label, picture
from dav2.data.store.manifest import MANIFEST, read_manifest
from dav2.data.store.shards import read_frame, read_member

TILE = 160
"""Height of a picture in pixels."""
EACH = 6


def read_label(out: str, row: Any) -> NDArray[np.float32]:
    """Disparity float32 (H, W), or normals (H, W, 3), of one row of a label manifest."""
    data = read_member(out, row["shard"], row["offset_label"], row["size_label"])
    return decode_label(data, row["codec"], row["bits"], row["vmin"], row["vmax"])


def write_gallery(source: str, out: str, path: Path) -> Path:
    """Write a sheet of three rows (best, worst, random), each of pairs photograph | label.

    Good and bad are told by flip agreement where that was recorded, else by sharpness at the image's edges.

    Args:
        source: folder of image shards.
        out: folder of their labels, finished.
        path: PNG file to write.
    """
    table = pd.read_parquet(io.BytesIO(read(join(out, MANIFEST))))
    order = "flip_agreement" if table["flip_agreement"].notna().all() else "sharpness"
    ranked = table.sort_values([order, "key"], ascending=False)
    photos = read_manifest(source).set_index("key", drop=False)
    rows = [ranked.head(EACH), ranked.tail(EACH), ranked.sample(min(EACH, len(ranked)), random_state=0)]
    strips = [
        np.concatenate([_pair(source, out, photos.loc[r["key"]], r) for _, r in part.iterrows()], 1) for part in rows
    ]
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate([np.pad(strip, ((0, 4), (0, width - strip.shape[1]), (0, 0))) for strip in strips])
    path.write_bytes(images.encode_png(sheet))
    return path


def _pair(source: str, out: str, photo: pd.Series, label: pd.Series) -> NDArray[np.uint8]:
    return np.concatenate([_tile(read_frame(source, photo).rgb), _tile(picture(read_label(out, label)))], 1)


def _tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(1, round(TILE * image.shape[1] / image.shape[0]))
    tile: NDArray[np.uint8] = np.asarray(
        cv2.resize(np.ascontiguousarray(image), (width, TILE), interpolation=cv2.INTER_AREA), np.uint8
    )
    return tile
