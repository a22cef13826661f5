"""Where the bytes of every training frame lie, gathered from manifests into flat arrays.

Made once per process. 62 million frames take some 6 GB as arrays (keys included) where a DataFrame of Python objects
would take ten times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dav2.data import storage
from dav2.data.store.depth_codec import CODEC_BITS
from dav2.data.store.manifest import MANIFEST, ManifestError, read_table, shard_path
from dav2.maps import Quantity

Request = tuple[str, int, int]
"""File, offset and size of bytes to be read."""
CODECS = tuple(CODEC_BITS)
_IMAGE = ["key", "split", "shard", "offset_image", "size_image", "ext_image", "width", "height", "sha256"]
_DEPTH = ["offset_depth", "size_depth", "metric", "valid", "sky"]
_LABEL = ["key", "shard", "offset_label", "size_label", "codec", "bits", "vmin", "vmax", "image_sha256"]


@dataclass(frozen=True)
class Part:
    """One data set of a training run.

    Attributes:
        shards: directory with the shards and their manifest.
        labels: directory of the pseudo-labels, or ``None`` where the shards hold depth.
        split: which frames to use.
    """

    shards: str
    labels: str | None = None
    split: str = "train"


class LabelRange(NamedTuple):
    """What turns stored codes into disparity."""

    codec: str
    bits: int
    low: float
    high: float


class FrameTable:
    """Frames of several parts, numbered part after part and shard after shard.

    Of pictures that several parts hold the first is taken, and none that a part holds out.

    Attributes:
        layers: what the targets are, one member each; none where the target is depth, or labels of it.
        members: blocks of a frame, the image among them.
        repeated: frames left out because another part has the same picture.
        part_sizes: frames of each part.

    Raises:
        ManifestError: no manifest, no usable frame, labels made from other pixels or of another quantity, or depth
            without metres where metres are asked for.
    """

    def __init__(self, parts: Sequence[Part], *, metres: bool = False, layers: Sequence[Quantity] = ()) -> None:
        if not parts:
            raise ManifestError("a training run needs at least one part")
        held: list[NDArray[np.uint64]] = []
        self.layers = tuple(layers)
        targets = [layer.value for layer in layers] or ["target"]
        self.members = 1 + len(targets)
        tables = [_table(part, metres, self.layers, held) for part in parts]
        frames = pd.concat(tables, ignore_index=True)
        part = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self.repeated = 0
        if len(parts) > 1:
            # Within one data set ingestion has seen to it.
            elsewhere = np.concatenate([np.empty(0, np.uint64), *held])
            repeated = frames["picture"].duplicated() | frames["picture"].isin(elsewhere)
            self.repeated = int(repeated.sum())
            frames, part = frames[~repeated].reset_index(drop=True), part[~repeated.to_numpy()]
        self.part_sizes: list[int] = np.bincount(part, minlength=len(tables)).tolist()
        self.keys = pa.array(frames["key"], pa.large_string())
        self.files = (
            list(frames["image_file"].cat.categories) if len(tables) == 1 else sorted(frames["image_file"].unique())
        )
        image_files = pd.Categorical(frames["image_file"], categories=self.files)
        self.label_files = sorted(frames["label_file"].dropna().unique())
        self._image_file = image_files.codes.astype(np.int32)
        self._label_file = pd.Categorical(frames["label_file"], categories=self.label_files).codes.astype(np.int32)
        self._offsets = frames[[f"offset_{name}" for name in ("image", *targets)]].to_numpy(np.int64)
        self._sizes = frames[[f"size_{name}" for name in ("image", *targets)]].to_numpy(np.int32)
        self._shape = frames[["height", "width"]].to_numpy(np.int32)
        self._digest = frames["bytes"].to_numpy(np.uint64)
        self._jpeg = (frames["ext_image"] == "jpg").to_numpy()
        self._codec = pd.Categorical(frames["codec"], categories=CODECS).codes
        self._bits = frames["bits"].to_numpy(np.int8)
        self._range = frames[["vmin", "vmax"]].to_numpy(np.float64)
        changes = np.flatnonzero(np.diff(self._image_file)) + 1
        self.shard_sizes: NDArray[np.int64] = np.diff(np.concatenate([[0], changes, [len(frames)]]))

    def __len__(self) -> int:
        return len(self._image_file)

    def key(self, frame: int) -> str:
        """Key of a frame."""
        return str(self.keys[frame].as_py())

    def shape(self, frame: int) -> tuple[int, int]:
        """Height and width of the stored image."""
        return int(self._shape[frame, 0]), int(self._shape[frame, 1])

    def is_jpeg(self, frame: int) -> bool:
        """Whether a stored image is a JPEG."""
        return bool(self._jpeg[frame])

    def image_digest(self, frame: int) -> bytes:
        """First eight bytes of the sha256 of the stored image."""
        return int(self._digest[frame]).to_bytes(8, "big")

    def stretches(self, first: int, last: int) -> list[tuple[str, int, int]]:
        """(file, start, end) of the bytes around frames ``first`` … ``last`` − 1, file by file.

        A file is left out where most of these bytes belong to other frames.
        """
        places: dict[str, list[tuple[int, int]]] = {}
        for frame in range(first, last):
            for path, offset, size in self.requests(frame):
                places.setdefault(path, []).append((offset, size))
        spans = []
        for path, found in places.items():
            start, end = min(offset for offset, _ in found), max(offset + size for offset, size in found)
            if end - start <= 2 * sum(size for _, size in found):
                spans.append((path, start, end))
        return spans

    def requests(self, frame: int) -> tuple[Request, ...]:
        """(file, offset, size) of the image and of its targets, in the order of ``layers``."""
        image, target = self._image_file[frame], self._label_file[frame]
        target_file = self.label_files[target] if target >= 0 else self.files[image]
        files = [self.files[image], *[target_file] * (self.members - 1)]
        places = zip(files, self._offsets[frame], self._sizes[frame], strict=True)
        return tuple((file, int(offset), int(size)) for file, offset, size in places)

    def label_range(self, frame: int) -> LabelRange | None:
        """How to read the frame's pseudo-label; ``None`` where its target is depth."""
        if self._label_file[frame] < 0:
            return None
        low, high = self._range[frame]
        return LabelRange(CODECS[self._codec[frame]], int(self._bits[frame]), float(low), float(high))


def _chosen(part: Part, columns: list[str], held: list[NDArray[np.uint64]]) -> pd.DataFrame:
    """Frames of the part's split, with ``picture`` and ``bytes``, the beginnings of the hashes of pixels and of stored
    bytes; of training frames, adds the pictures held out to ``held``."""
    table = read_table(part.shards, [*columns, "pixel_sha256"])
    pictures = _beginnings(table["pixel_sha256"])
    frames = table.drop_columns(["pixel_sha256"]).to_pandas()
    frames = frames.assign(picture=pictures, bytes=_beginnings(table["sha256"]))
    inside = frames["split"] == part.split
    if part.split == "train":
        held.append(pictures[~inside.to_numpy()])
    frames = frames[inside]
    if frames.empty:
        raise ManifestError(f"{storage.join(part.shards, MANIFEST)} holds no frame of split '{part.split}'")
    files = frames["shard"].astype("category")
    frames["image_file"] = files.cat.rename_categories([shard_path(part.shards, s) for s in files.cat.categories])
    return frames


def _beginnings(hashes: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Eight bytes of each hash; of 62 million pictures two different ones agree in them once in ten thousand runs."""
    digits = "".join(pc.utf8_slice_codeunits(hashes, 0, 16).to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def _table(part: Part, metres: bool, layers: tuple[Quantity, ...], held: list[NDArray[np.uint64]]) -> pd.DataFrame:
    if part.labels:
        return _labelled(part, layers, held)
    return _with_layers(part, layers, held) if layers else _with_depth(part, metres, held)


def _with_layers(part: Part, layers: tuple[Quantity, ...], held: list[NDArray[np.uint64]]) -> pd.DataFrame:
    columns = [f"{what}_{layer}" for layer in layers for what in ("offset", "size")]
    frames = _chosen(part, _IMAGE + columns, held)
    there = (frames[[f"size_{layer}" for layer in layers]] > 0).all(axis=1)
    if not there.any():
        wanted = ", ".join(layers)
        raise ManifestError(
            f"{part.shards}: no frame of split '{part.split}' has {wanted}; name them in the option 'layers' of this "
            "source, where its reader has that, and ingest it again"
        )
    return frames[there].assign(label_file=None, codec=None, bits=0, vmin=np.nan, vmax=np.nan)


def _with_depth(part: Part, metres: bool, held: list[NDArray[np.uint64]]) -> pd.DataFrame:
    frames = _chosen(part, _IMAGE + _DEPTH, held)
    if metres and not frames["metric"].all():
        raise ManifestError(
            f"{part.shards}: its depth has no metres, so a metric model cannot learn from it; use another source"
        )
    # Depth known somewhere other than in the sky, or there is nothing to learn from.
    frames = frames[(frames["size_depth"] > 0) & (frames["valid"] > frames["sky"])]
    if frames.empty:
        raise ManifestError(
            f"{part.shards}: no frame of split '{part.split}' has depth; name its labels, or another source"
        )
    return frames.rename(columns={"offset_depth": "offset_target", "size_depth": "size_target"}).assign(
        label_file=None, codec=None, bits=0, vmin=np.nan, vmax=np.nan
    )


def _labelled(part: Part, layers: tuple[Quantity, ...], held: list[NDArray[np.uint64]]) -> pd.DataFrame:
    assert part.labels is not None
    frames = _chosen(part, _IMAGE, held)
    labels = read_table(part.labels, _LABEL).to_pandas().rename(columns={"shard": "label_shard"})
    frames = frames.merge(labels, on="key", how="inner", validate="one_to_one")
    if frames.empty:
        raise ManifestError(f"{part.labels}: no label belongs to a frame of {part.shards}; run the pseudo_label stage")
    stale = frames["sha256"] != frames["image_sha256"]
    if stale.any():
        raise ManifestError(
            f"{part.labels}: {int(stale.sum())} labels were made from other pixels than {part.shards} holds now "
            f"(first: {frames['key'][stale].iloc[0]}); run the pseudo_label stage again"
        )
    target = "target"
    if layers:
        # A label is one map: its codec then is the name of the layer that :mod:`dav2.data.store.layer_codec` stored.
        target = layers[0].value
        if len(layers) > 1 or set(frames["codec"]) != {target}:
            raise ManifestError(f"{part.labels}: its labels are not {', '.join(layers)}")
        frames = frames.assign(codec=None)
    elif not set(frames["codec"]) <= set(CODECS):
        raise ManifestError(f"{part.labels}: its labels are not of depth but of {', '.join(set(frames['codec']))}")
    frames["label_file"] = [storage.join(part.labels, shard) for shard in frames["label_shard"]]
    return frames.rename(columns={"offset_label": f"offset_{target}", "size_label": f"size_{target}"})
