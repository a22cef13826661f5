"""Frames of a benchmark, read and prepared ahead in threads, predicted in batches of one shape.

The forward pass is what scoring should cost. Decoding, resizing and normalising release the interpreter lock, so they
run in threads beside it; frames are ordered by shape, so that neighbours share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import limits
from dav2.ahead import begun_ahead
from dav2.data import storage
from dav2.data.frame import Frame
from dav2.data.store.shards import ShardError, read_frame
from dav2.evaluation.predictors import Judged
from dav2.scores.scoring import UNREADABLE

Transform = Callable[[Frame], NDArray[np.uint8]]
BATCH_PIXELS = 4_000_000
"""Network pixels per batch: 8 images at 518 × 980, and never more images than ``batch``."""


@dataclass(slots=True)
class Read:
    """A frame with its network input, or the reason it could not be read; ``problem`` is what that counts as."""

    key: str
    frame: Frame | None
    tensor: Tensor | None
    error: str | None = None
    problem: str = UNREADABLE


def _read(
    directory: Path,
    row: dict[str, Any],
    predictor: Judged,
    crop: Callable[[Frame], Frame],
    transform: Transform | None,
    enlarge: float,
    image_side: int | None,
) -> Read:
    try:
        frame = crop(read_frame(directory, row))
    except (ShardError, OSError) as error:
        if (failing := storage.outage(error)) is not None:
            raise failing from error  # A store that is away says nothing of the frame: what it held counts as unread.
        return Read(row["key"], None, None, str(error))
    rgb = frame.rgb if transform is None else transform(frame)
    return Read(row["key"], frame, predictor.prepare(limit_side(rgb, image_side), enlarge))


def limit_side(rgb: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """Reduce an image so that its longest side is at most ``side`` pixels (area average)."""
    if side is None or max(rgb.shape[:2]) <= side:
        return rgb
    scale = side / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def bottom_centre(height: int, width: int, rows: int, columns: int) -> tuple[slice, slice]:
    """The lowest ``rows`` and the middle ``columns`` of an image."""
    top, left = height - rows, (width - columns) // 2
    return slice(top, height), slice(left, left + columns)


def read_ahead(tasks: list[Callable[[], Read]], workers: int, ahead: int) -> Iterator[Read]:
    """Results of ``tasks`` in order, at most ``ahead`` of them computed in advance."""
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="dav2-read") as pool,
        closing(begun_ahead((pool.submit(task) for task in tasks), ahead, Future.cancel)) as reads,
    ):
        for read in reads:
            yield read.result()


def _batches(reads: Iterator[Read], batch: int) -> Iterator[list[Read]]:
    """Runs of equal network shape; an unreadable frame is a batch of its own."""
    group: list[Read] = []
    for read in reads:
        if group and (read.tensor is None or not _fits(group, read.tensor, batch)):
            yield group
            group = []
        if read.tensor is None:
            yield [read]
        else:
            group.append(read)
    if group:
        yield group


def _fits(group: list[Read], tensor: Tensor, batch: int) -> bool:
    first = group[0].tensor
    pixels = tensor.shape[-1] * tensor.shape[-2]
    return (
        first is not None
        and first.shape == tensor.shape
        and len(group) < batch
        and (len(group) + 1) * pixels <= BATCH_PIXELS
    )


def predict_rows(
    directory: Path,
    rows: list[dict[str, object]],
    predictor: Judged,
    *,
    batch: int = 8,
    workers: int | None = None,
    crop: Callable[[Frame], Frame] = lambda frame: frame,
    transform: Transform | None = None,
    enlarge: float = 1.0,
    image_side: int | None = None,
) -> Iterator[tuple[Read, Tensor | None]]:
    """Predictions for the frames of a manifest, at the size of each frame.

    Args:
        directory: the shards.
        rows: manifest rows; they are ordered by shape here.
        predictor: what predicts.
        batch: most images at once.
        workers: reader threads; ``None`` is one per two cores, at least one.
        crop: applied to the frame before anything else (image and depth alike).
        transform: gives the image that is predicted in place of ``frame.rgb`` (robustness variants).
        enlarge: multiple of the native input size.
        image_side: longest side to which the image is reduced before that.

    Yields:
        Each frame with its prediction (H, W) on the predictor's device, or with ``None`` when it cannot be read.
    """
    rows = sorted(rows, key=lambda row: (row["height"], row["width"]))

    def task(row: dict[str, object]) -> Callable[[], Read]:
        return lambda: _read(directory, row, predictor, crop, transform, enlarge, image_side)

    workers = workers or max(1, limits.cores() // 2)
    reads = read_ahead([task(row) for row in rows], workers, ahead=batch + 2 * workers)
    for group in _batches(reads, batch):
        if group[0].tensor is None:
            yield group[0], None
            continue
        predictions = predictor.predict(torch.stack([read.tensor for read in group if read.tensor is not None]))
        for read, prediction in zip(group, predictions, strict=True):
            assert read.frame is not None
            yield read, predictor.resized(prediction, (read.frame.rgb.shape[0], read.frame.rgb.shape[1]))
