"""Decode → teacher → encode, each a few batches apart, with bounded memory."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.ahead import begun_ahead
from dav2.data import images, ranges
from dav2.data.store import depth_codec
from dav2.data.store.layer_codec import encode_layer
from dav2.maps import Quantity
from dav2.pseudo_label import columns
from dav2.pseudo_label.batches import Photo
from dav2.pseudo_label.receipts import LabelError, LabelOptions
from dav2.pseudo_label.rows import FIELD_OF_CODEC
from dav2.pseudo_label.teacher import Predictions, Teacher

Coded = tuple[str, bytes, dict[str, object]]
"""Field and bytes of a label, and what its row says of them."""
AHEAD = 2
"""Batches that are decoded before their turn, and batches that may wait to be written."""


@dataclass(frozen=True, slots=True)
class Label:
    """One coded label and what is said of it."""

    field: str
    data: bytes
    row: dict[str, object]
    """The manifest row, but for the label's place."""

    def members(self) -> dict[str, bytes]:
        """Members of the label shard: the map, and the row as JSON so that the shard explains itself."""
        return {self.field: self.data, "json": json.dumps(self.row, sort_keys=True).encode()}


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch whose photographs are being decoded into ``images``, float32 (B, 3, h, w)."""

    members: list[int]
    images: Tensor
    decoding: list[Future[None]]

    def wait(self) -> Tensor:
        for job in self.decoding:
            job.result()
        return self.images

    def cancel(self) -> None:
        for job in self.decoding:
            job.cancel()


@dataclass(frozen=True, slots=True)
class LabelPipeline:
    """What the threads of one shard share."""

    shard: Path
    photos: Sequence[Photo]
    options: LabelOptions
    teacher: Teacher
    pool: ThreadPoolExecutor

    def run(self, batches: Sequence[list[int]]) -> Iterator[tuple[int, Label]]:
        """Labels with their index into the photographs, batch by batch."""
        decoding = begun_ahead(map(self._decode, batches), AHEAD + 1, _Batch.cancel)
        encoding: deque[list[tuple[int, Future[Label]]]] = deque()
        started: tuple[_Batch, Predictions] | None = None
        try:
            while (batch := next(decoding, None)) is not None or started is not None:
                previous, started = started, None
                if batch is not None:
                    keys = [self.photos[index].key for index in batch.members]
                    started = batch, self.teacher(batch.wait(), keys)
                if previous is not None:
                    encoding.append(self._encode(*previous))
                while len(encoding) > (AHEAD if started else 0):
                    yield from ((index, job.result()) for index, job in encoding.popleft())
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, members: list[int]) -> _Batch:
        first = self.photos[members[0]]
        shape = self.teacher.teaching.shape(first.height, first.width, self.options.input_size)
        # Torch's own memory is always aligned alike; elsewhere the processor's kernels round by where the batch lies.
        target = torch.empty(len(members), 3, *shape, pin_memory=self.teacher.device.type == "cuda")
        planes = target.numpy()
        jobs = [self.pool.submit(self._decode_one, self.photos[i], planes[n]) for n, i in enumerate(members)]
        return _Batch(members, target, jobs)

    def _decode_one(self, photo: Photo, target: NDArray[np.float32]) -> None:
        """Read, check and decode one photograph into its place in the batch."""
        (data,) = ranges.read_ranges([(str(self.shard), photo.offset, photo.size)])
        if hashlib.sha256(data).hexdigest() != photo.sha256:
            raise LabelError(
                f"{self.shard}: the bytes of '{photo.key}' are not those in the manifest; the shard is damaged, "
                "ingest its source again"
            )
        rgb = images.decode(data, photo.key).rgb
        if rgb.shape[:2] != (photo.height, photo.width):
            raise LabelError(
                f"{photo.key}: decodes to {rgb.shape[:2]}, the manifest says {photo.height} × {photo.width}"
            )
        target[...] = self.teacher.teaching.prepare(rgb, self.options.input_size)

    def _encode(self, batch: _Batch, predictions: Predictions) -> list[tuple[int, Future[Label]]]:
        predictions.wait()
        return [
            (index, self.pool.submit(self._encode_one, self.photos[index], batch.images[n].numpy(), predictions, n))
            for n, index in enumerate(batch.members)
        ]

    def _encode_one(self, photo: Photo, image: NDArray[np.float32], predictions: Predictions, n: int) -> Label:
        """Code one label and measure it."""
        if not np.isfinite(predictions.disparity[n].numpy()).all():
            raise LabelError(f"{photo.key}: the teacher's {self.teacher.teaching.quantity} is not finite")
        if self.teacher.of_normals:
            field, data, row = self._normals(image, predictions, n)
        else:
            field, data, row = self._disparity(image, predictions, n)
        row |= {"key": photo.key, "teacher": self.teacher.digest, "image_sha256": photo.sha256}
        if predictions.embedding is not None:
            row["embedding"] = predictions.embedding[n].tolist()
        return Label(field, data, row)

    def _disparity(self, image: NDArray[np.float32], predictions: Predictions, n: int) -> Coded:
        disparity = predictions.disparity[n].numpy()
        data, meta = depth_codec.encode_disparity(disparity, self.options.bits, self.options.codec)
        row: dict[str, object] = {
            "codec": meta["codec"],
            "bits": meta["bits"],
            "vmin": meta["min"],
            "vmax": meta["max"],
            "height": disparity.shape[0],
            "width": disparity.shape[1],
        }
        if predictions.columns is not None:
            row |= {name: float(values[n]) for name, values in predictions.columns.items()}
        else:
            row |= {
                "range": columns.relative_range(disparity),
                "saturated": columns.saturated_share(disparity, self.options.bits),
                "sharpness": columns.edge_sharpness(disparity, image.mean(0)),
            }
        if predictions.flipped is not None:
            row["flip_agreement"] = columns.agreement(disparity, predictions.flipped[n].numpy())
        if predictions.rescaled is not None:
            row["scale_agreement"] = columns.agreement(disparity, predictions.rescaled[n].numpy())
        return FIELD_OF_CODEC[self.options.codec], data, row

    def _normals(self, image: NDArray[np.float32], predictions: Predictions, n: int) -> Coded:
        normals = _channels_last(predictions.disparity[n])
        row: dict[str, object] = {
            "codec": Quantity.NORMALS.value,
            "bits": 16,
            "height": normals.shape[0],
            "width": normals.shape[1],
            "range": columns.spread(normals),
            "sharpness": columns.edge_sharpness(normals, image.mean(0)),
        }
        for name, other in (("flip_agreement", predictions.flipped), ("scale_agreement", predictions.rescaled)):
            if other is not None:
                row[name] = columns.mean_cosine(normals, _channels_last(other[n]))
        return FIELD_OF_CODEC[Quantity.NORMALS.value], encode_layer(Quantity.NORMALS, normals), row


def _channels_last(vectors: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors.numpy().transpose(1, 2, 0))
