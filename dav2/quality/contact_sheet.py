"""A picture of frames: photograph beside depth, with the key below, so that a failure can be seen."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame
from dav2.data.storage import StorageError
from dav2.data.store.labels import decode_label, picture
from dav2.data.store.manifest import read_manifest
from dav2.data.store.packing import CodecError
from dav2.data.store.shards import ShardError, read_frame, read_member
from dav2.files import write_whole
from dav2.params import Params

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

HEIGHT = 120
WIDTH = 330
CAPTION = 16
MARGIN = 6
COLUMNS = 3

Panels = tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]
"""Photograph uint8 (H, W, 3) and disparity float32 (H, W) or normals (H, W, 3), each ``None`` where there is none."""


def draw(rows: pd.DataFrame, root: Path, params: Params, path: Path, limit: int = 20) -> None:
    """Write a JPEG of the first ``limit`` frames of ``rows`` to ``path``; no rows, no file.

    Args:
        rows: rows of the gate's table of frames, labelled ones (with ``size_label``) or not.

    A frame whose bytes cannot be read is drawn as an empty tile with the reason.
    """
    if rows.empty:
        return
    photographs: dict[str, pd.DataFrame] = {}
    tiles = []
    for _, row in rows.head(limit).iterrows():
        shards = root / params.shards(row["source"])
        try:
            if "size_label" not in row:
                tiles.append(_tile(row["key"], *_frame_panels(shards, row)))
                continue
            if row["source"] not in photographs:
                photographs[row["source"]] = read_manifest(shards).set_index("key", drop=False)
            labels = root / params.labels(row["source"])
            tiles.append(_tile(row["key"], *_label_panels(labels, shards, row, photographs[row["source"]])))
        except (ShardError, StorageError, CodecError, OSError) as error:
            tiles.append(_tile(f"{row['key']}: {error}", None, None))
    _write(tiles, path)


def draw_frames(frames: Sequence[Frame], path: Path) -> None:
    """Write a JPEG of frames that are read already, each beside its depth where it has any; none, no file."""
    if frames:
        _write([_tile(frame.key, *_panels(frame)) for frame in frames], path)


def _write(tiles: list[Image.Image], path: Path) -> None:
    buffer = io.BytesIO()
    _sheet(tiles).save(buffer, "JPEG", quality=88)
    write_whole(path, buffer.getvalue())


def _panels(frame: Frame) -> Panels:
    if frame.depth is None:
        return frame.rgb, None
    with np.errstate(divide="ignore"):
        return frame.rgb, (1.0 / frame.depth).astype(np.float32)


def _frame_panels(shards: Path, row: pd.Series) -> Panels:
    return _panels(read_frame(shards, row))


def _label_panels(labels: Path, shards: Path, row: pd.Series, photographs: pd.DataFrame) -> Panels:
    data = read_member(labels, row["shard"], row["offset_label"], row["size_label"])
    rgb = read_frame(shards, photographs.loc[row["key"]]).rgb if row["key"] in photographs.index else None
    return rgb, decode_label(data, row["codec"], row["bits"], row["vmin"], row["vmax"])


def _tile(caption: str, rgb: NDArray[np.uint8] | None, values: NDArray[np.float32] | None) -> Image.Image:
    from PIL import Image, ImageDraw, ImageOps

    tile = Image.new("RGB", (WIDTH, HEIGHT + CAPTION), "white")
    left = 0
    for panel in (rgb, None if values is None else picture(values)):
        if panel is None:
            continue
        tile.paste(ImageOps.contain(Image.fromarray(panel), (WIDTH // 2 - 2, HEIGHT)), (left, 0))
        left += WIDTH // 2
    ImageDraw.Draw(tile).text((0, HEIGHT + 2), caption, fill="black")
    return tile


def _sheet(tiles: list[Image.Image]) -> Image.Image:
    from PIL import Image

    step_x, step_y = WIDTH + MARGIN, HEIGHT + CAPTION + MARGIN
    columns = min(COLUMNS, len(tiles))
    size = (columns * step_x + MARGIN, math.ceil(len(tiles) / columns) * step_y + MARGIN)
    sheet = Image.new("RGB", size, "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (MARGIN + index % columns * step_x, MARGIN + index // columns * step_y))
    return sheet
