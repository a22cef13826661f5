"""One shard of an ingestion: a slice of a source's items in, a tar file and its receipt out.

What a shard holds depends on its items and the settings alone, so any process may make it and any number of them
give the same bytes. The receipt names the hash of the finished shard; a shard without a fitting receipt is made
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from dav2.data import storage
from dav2.data.frame import Frame, FrameError, Intrinsics
from dav2.data.raw.sources import Item, Source
from dav2.data.store.depth_codec import FARTHEST, NEAREST, metric_codes, outside_range
from dav2.data.store.ingest.statistics import depth_statistics, image_statistics, pixel_hash
from dav2.data.store.shards import LAYER_FIELDS, Place, ShardWriter, frame_members, read_member
from dav2.failures import reason
from dav2.files import sha256_file

WORK = ".ingest"
"""Folder of receipts inside the output directory; it goes when the manifest is there."""
MAX_OUTSIDE = 0.01
"""Largest share of finite depth that storage may clip before a frame is refused."""
_NO_PLACE = Place(0, 0)
_MEMBERS = {
    "depth": "depth.zst",
    **{quantity.value: name for quantity, name in LAYER_FIELDS.items()},
    "json": "json",
}
"""Members beside the image, as the manifest's columns and as shards name them, in the order of shards."""


class Limits(Protocol):
    """What a frame must keep to; see ``params.IngestParams``."""

    @property
    def min_side(self) -> int:
        """Least side of an image in pixels."""
        ...

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image."""
        ...

    @property
    def max_aspect(self) -> float:
        """Longest side over shortest."""
        ...


@dataclass(frozen=True)
class Settings:
    """What all shards of one ingestion share, as far as it decides their bytes."""

    reader: str
    path: str
    name: str
    group: str
    options: dict[str, object]
    min_side: int
    max_pixels: int
    max_aspect: float
    jpeg_quality: int
    licence: str = ""
    forbidden: tuple[str, ...] = ()
    """Digests of the manifests whose pictures must not come in."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to make. ``fingerprint`` stands for items, files and settings together."""

    shard: str
    split: str
    items: tuple[Item, ...]
    fingerprint: str


@dataclass
class Receipt:
    """What became of a task. A shard of which nothing was left has ``size`` 0 and no file.

    ``rows`` are those of the manifest, ``dropped`` the same for frames taken out as duplicates, ``quarantine`` has key,
    scene, path and reason.
    """

    shard: str
    fingerprint: str
    sha256: str = ""
    size: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def load(cls, out: storage.Location, shard: str) -> Self | None:
        """The receipt of a shard, or ``None`` where there is no readable one."""
        try:
            return cls(**json.loads(storage.read(receipt_path(out, shard))))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def publish(self, out: storage.Location) -> None:
        """Write the receipt, replacing a former one of this shard."""
        storage.write(receipt_path(out, self.shard), json.dumps(vars(self), separators=(",", ":")).encode())

    def holds(self, out: storage.Location) -> bool:
        """Whether the shard is the one this receipt was written for.

        A local file is read and hashed. An object store takes an object whole or not at all and checks it on
        arrival, so there the size must do: hashing would fetch every finished byte again.
        """
        path = storage.join(out, self.shard)
        if self.size == 0:
            return not storage.exists(path)
        try:
            if storage.size(path) != self.size:
                return False
            return storage.is_remote(path) or sha256_file(path) == self.sha256
        except FileNotFoundError:
            return False


def receipt_path(out: storage.Location, shard: str) -> str:
    """Where the receipt of a shard lies."""
    return storage.join(out, f"{WORK}/{shard}.json")


def make_shard(task: ShardTask, settings: Settings, source: Source, out: storage.Location) -> Receipt:
    """Read a task's items, write the shard and its receipt. One frame is in memory at a time.

    Raises:
        OSError: the shard cannot be written (a full disk, a refused upload), or the store that is read from no longer
            answers, of which its frames are not to be taken for damaged. Bad frames never raise.
    """
    receipt = Receipt(task.shard, task.fingerprint)
    writer = ShardWriter(storage.join(out, task.shard))
    with writer:
        for item in task.items:
            try:
                members, row = _prepare(source.read(item), item, task, settings)
            except Exception as error:
                if (failing := storage.outage(error)) is not None:
                    raise failing from None
                # A file that trips a decoder in a way no one foresaw must not stop ten million others.
                said = str(error) if isinstance(error, FrameError) else reason(error)
                receipt.quarantine.append(refusal(item, said))
            else:
                receipt.rows.append(row | _columns(writer.add(item.key, members)))
    receipt.sha256, receipt.size = writer.sha256, writer.size
    _close(receipt, out)
    return receipt


def drop(receipt: Receipt, reasons: dict[str, str], out: storage.Location) -> Receipt:
    """Write the shard again without the frames that ``reasons`` names; they move from ``rows`` to ``dropped``."""
    slimmer = Receipt(receipt.shard, receipt.fingerprint, quarantine=receipt.quarantine)
    frames = receipt.rows + receipt.dropped
    slimmer.dropped = [row | {"reason": reasons[row["key"]]} for row in frames if row["key"] in reasons]
    writer = ShardWriter(storage.join(out, receipt.shard))
    with writer:
        for row in receipt.rows:
            if row["key"] not in reasons:
                places = writer.add(row["key"], _stored_members(row, out))
                slimmer.rows.append(row | _columns(places))
    slimmer.sha256, slimmer.size = writer.sha256, writer.size
    _close(slimmer, out)
    return slimmer


def _close(receipt: Receipt, out: storage.Location) -> None:
    if not receipt.rows:
        storage.remove(storage.join(out, receipt.shard))
        receipt.sha256, receipt.size = "", 0
    receipt.publish(out)


def _prepare(
    frame: Frame, item: Item, task: ShardTask, settings: Settings
) -> tuple[dict[str, bytes], dict[str, object]]:
    """Members of the shard and columns of the manifest for one frame; ``FrameError`` where it must not pass."""
    check_frame(frame, settings)
    height, width = frame.rgb.shape[:2]
    camera = frame.intrinsics or Intrinsics(*[float("nan")] * 4)
    identity: dict[str, object] = {
        "key": frame.key,
        "source": settings.name,
        "group": settings.group,
        "scene": item.scene,
        "split": task.split,
        "width": width,
        "height": height,
        "metric": frame.metric and frame.depth is not None,
        "licence": settings.licence,
    }
    description = identity | {"intrinsics": frame.intrinsics, "extra": frame.extra}
    lossless = settings.group == "benchmark"
    codes = None if frame.depth is None else metric_codes(frame.depth)
    members = frame_members(frame, codes, description, lossless=lossless, quality=settings.jpeg_quality)
    extension = next(iter(members))
    row = identity | {
        "shard": task.shard,
        "ext_image": extension,
        **camera._asdict(),
        "sha256": hashlib.sha256(members[extension]).hexdigest(),
        "pixel_sha256": pixel_hash(frame.rgb),
        **depth_statistics(codes),
        **image_statistics(frame.rgb),
    }
    return members, row


def check_frame(frame: Frame, settings: Limits) -> None:
    """Refuse a frame by its size, or by depth that storage cannot hold; the reader judges its sense."""
    height, width = frame.rgb.shape[:2]
    if min(height, width) < settings.min_side:
        raise FrameError(f"{frame.key}: {width} × {height} pixels, less than min_side = {settings.min_side}")
    if height * width > settings.max_pixels:
        raise FrameError(f"{frame.key}: {width} × {height} pixels, more than max_pixels = {settings.max_pixels}")
    if max(height, width) > settings.max_aspect * min(height, width):
        raise FrameError(f"{frame.key}: {width} × {height} is longer than max_aspect = {settings.max_aspect:g} allows")
    outside = 0.0 if frame.depth is None else outside_range(frame.depth)
    if outside > MAX_OUTSIDE:
        raise FrameError(f"{frame.key}: {outside:.1%} of its depth lies outside {NEAREST:g} … {FARTHEST:g}")


def _columns(places: dict[str, Place]) -> dict[str, object]:
    image = places.get("jpg") or places["png"]
    others = {kind: places.get(name, _NO_PLACE) for kind, name in _MEMBERS.items()}
    found = {"image": image, **others}.items()
    return {f"{what}_{kind}": getattr(place, what) for kind, place in found for what in Place._fields}


def _stored_members(row: Mapping[str, Any], out: storage.Location) -> dict[str, bytes]:
    return {
        name: read_member(out, row["shard"], row[f"offset_{kind}"], row[f"size_{kind}"])
        for kind, name in {"image": row["ext_image"], **_MEMBERS}.items()
        if row[f"size_{kind}"] > 0
    }


def refusal(item: Item, reason: str) -> dict[str, object]:
    """Row of the quarantine."""
    return {"key": item.key, "scene": item.scene, "path": " ".join(item.paths), "reason": reason}
