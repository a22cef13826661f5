"""Shards: plain tar files in WebDataset layout, written whole or not at all, read by offset.

The members of one frame lie side by side: ``<key>.jpg`` or ``<key>.png``, ``<key>.depth.zst`` where depth is known,
``<key>.<layer>.zst`` for every layer of :data:`dav2.maps.LAYERS` that the frame has, and ``<key>.json``. Keys hold no
dot, so every WebDataset reader groups them rightly. The manifest keeps where each member begins, so reading a frame is
one ranged read and never a walk over headers. Headers carry no time, owner or mode of the machine: equal frames give
equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from dav2.data import ranges, storage
from dav2.data.frame import KEY_PATTERN, Frame, FrameError, Intrinsics
from dav2.data.images import decode, encode_jpeg, encode_png
from dav2.data.store.depth_codec import decode_metric, encode_metric_codes
from dav2.data.store.layer_codec import decode_layer, encode_layer
from dav2.data.store.manifest import shard_path
from dav2.data.store.packing import CodecError, Codes
from dav2.maps import LAYERS

LAYER_FIELDS = {quantity: f"{quantity}.zst" for quantity in LAYERS}
"""Member of each layer."""
FIELDS = ("jpg", "png", "depth.zst", *LAYER_FIELDS.values(), "disp.png", "disp.jls", "disp.jxl", "json")
"""The only member kinds that are written or read: images and JSON, nothing that could run."""
MAX_MEMBER = 512 * 2**20
"""Bytes of the largest member that is accepted from a tar file."""


class ShardError(ValueError):
    """A shard that cannot be used; the message names the file and member."""


class Place(NamedTuple):
    """Where a member's bytes lie in its shard."""

    offset: int
    size: int


class Member(NamedTuple):
    """One file of a shard as found by walking over it."""

    key: str
    field: str
    place: Place
    data: bytes


class ShardWriter:
    """Writes one shard; the file takes its name when the ``with`` block ends without an error.

    Attributes:
        sha256: hash of the finished file; empty until then.
        size: bytes of the finished file.
        frames: keys added.
    """

    def __init__(self, path: storage.Location) -> None:
        self.path = str(path)
        self.sha256 = ""
        self.size = 0
        self.frames = 0
        self._keys: set[str] = set()
        self._hash = hashlib.sha256()
        self._stack = contextlib.ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._file = self._stack.enter_context(storage.atomic_file(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._put(b"\0" * (2 * tarfile.BLOCKSIZE))
            self._put(b"\0" * (-self.size % tarfile.RECORDSIZE))
        self._stack.__exit__(kind, error, trace)
        self._file = None
        if kind is None:
            self.sha256 = self._hash.hexdigest()

    def add(self, key: str, members: Mapping[str, bytes]) -> dict[str, Place]:
        """Append the members of one frame, by field name (``{"jpg": …, "depth.zst": …, "json": …}``).

        Returns:
            Place of each member's bytes.

        Raises:
            ShardError: a bad or repeated key, or a field that shards do not hold.
        """
        if not KEY_PATTERN.fullmatch(key):
            raise ShardError(f"{self.path}: key '{key}' must look like source/scene/frame, of a-z 0-9 _ - only")
        if key in self._keys:
            raise ShardError(f"{self.path}: key '{key}' was added before")
        unknown = [name for name in members if name not in FIELDS]
        if unknown:
            raise ShardError(f"{self.path}: shards do not hold {unknown}; allowed: {', '.join(FIELDS)}")
        self._keys.add(key)
        self.frames += 1
        return {field: self._append(f"{key}.{field}", data) for field, data in members.items()}

    def _append(self, name: str, data: bytes) -> Place:
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._put(header.tobuf(tarfile.GNU_FORMAT, "utf-8"))
        place = Place(self.size, len(data))
        self._put(data)
        self._put(b"\0" * (-len(data) % tarfile.BLOCKSIZE))
        return place

    def _put(self, data: bytes) -> None:
        if self._file is None:
            raise ShardError(f"{self.path}: write to a shard inside its 'with' block")
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)


def frame_members(
    frame: Frame, codes: Codes | None, description: Mapping[str, object], *, lossless: bool, quality: int
) -> dict[str, bytes]:
    """Members of a frame, its layers and the codes of its depth, ready for :meth:`ShardWriter.add`.

    The source's own JPEG bytes are kept where there are such. Else ``lossless`` chooses PNG (benchmarks, whose pixels
    must stay as they are) or JPEG of ``quality``. ``description`` becomes the JSON member; its ``extra`` comes back
    with the frame.
    """
    if frame.jpeg is not None:
        members = {"jpg": frame.jpeg}
    elif lossless:
        members = {"png": encode_png(frame.rgb)}
    else:
        members = {"jpg": encode_jpeg(frame.rgb, quality)}
    if codes is not None:
        members["depth.zst"] = encode_metric_codes(codes)
    for quantity, values in frame.layers.items():
        members[LAYER_FIELDS[quantity]] = encode_layer(quantity, values)
    members["json"] = json.dumps(description, sort_keys=True, separators=(",", ":")).encode()
    return members


def read_member(directory: storage.Location, shard: str, offset: int, size: int) -> bytes:
    """Bytes of one member by its place in the manifest."""
    return ranges.read_ranges([(shard_path(directory, shard), int(offset), int(size))])[0]


def read_frame(directory: storage.Location, row: Mapping[str, Any]) -> Frame:
    """The frame of one manifest row; its image bytes are checked against the row's hash.

    Args:
        row: a row of :func:`dav2.data.store.manifest.read_manifest` (a pandas Series or any mapping).

    Raises:
        ShardError: the shard does not hold what the manifest says.
    """
    path = shard_path(directory, row["shard"])
    there = [quantity for quantity in LAYERS if row[f"size_{quantity}"] > 0]
    members = ["image", "json", *(["depth"] if row["size_depth"] > 0 else []), *there]
    requests = [(path, int(row[f"offset_{member}"]), int(row[f"size_{member}"])) for member in members]
    blocks = dict(zip(members, ranges.read_ranges(requests), strict=True))
    image = blocks["image"]
    if hashlib.sha256(image).hexdigest() != row["sha256"]:
        raise ShardError(
            f"{path}: the image of '{row['key']}' is not the one in the manifest; ingest this source again"
        )
    try:
        rgb = decode(image, f"{path}:{row['key']}").rgb
        return Frame(
            key=row["key"],
            rgb=rgb,
            depth=decode_metric(blocks["depth"]) if "depth" in blocks else None,
            metric=bool(row["metric"]),
            intrinsics=_intrinsics(row),
            jpeg=image if row["ext_image"] == "jpg" else None,
            extra=json.loads(blocks["json"]).get("extra", {}),
            **{quantity.value: decode_layer(quantity, blocks[quantity]) for quantity in there},
        )
    except (FrameError, CodecError, ValueError) as error:
        raise ShardError(f"{path}: frame '{row['key']}': {error}") from error


def _intrinsics(row: Mapping[str, Any]) -> Intrinsics | None:
    values = [float(row[name]) for name in Intrinsics._fields]
    return Intrinsics(*values) if all(value == value for value in values) else None


def walk(path: storage.Location) -> Iterator[Member]:
    """Members of a shard of unknown origin, in file order, with every rule checked before its bytes are used.

    Raises:
        ShardError: not a tar file, cut off, a link or device, a name that is absolute, climbs out or repeats, a kind of
            member that shards do not hold, or one that is too large.
    """
    seen: set[str] = set()
    try:
        with _opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                key, field = _checked_name(path, entry, seen)
                content = archive.extractfile(entry)
                data = content.read() if content else b""
                if len(data) != entry.size:
                    raise ShardError(f"{path}: '{entry.name}' is cut off")
                yield Member(key, field, Place(entry.offset_data, entry.size), data)
    except tarfile.TarError as error:
        raise ShardError(f"{path}: not a whole tar file: {error}") from error


def _opened(path: storage.Location) -> IO[bytes]:
    """A seekable stream; shards are a few hundred MB, so a remote one is read at once."""
    return io.BytesIO(storage.read(path)) if storage.is_remote(path) else Path(path).open("rb")


def _checked_name(path: storage.Location, entry: tarfile.TarInfo, seen: set[str]) -> tuple[str, str]:
    folder, _, base = entry.name.rpartition("/")
    stem, _, field = base.partition(".")
    key = f"{folder}/{stem}"
    if not entry.isreg():
        raise ShardError(f"{path}: '{entry.name}' is not a plain file")
    if not KEY_PATTERN.fullmatch(key) or field not in FIELDS:
        raise ShardError(f"{path}: member '{entry.name[:200]}' is not <source>/<scene>/<frame>.<{'|'.join(FIELDS)}>")
    if entry.name in seen:
        raise ShardError(f"{path}: member '{entry.name}' is there twice")
    if entry.size > MAX_MEMBER:
        raise ShardError(f"{path}: member '{entry.name}' has {entry.size} bytes, more than {MAX_MEMBER}")
    seen.add(entry.name)
    return key, field
