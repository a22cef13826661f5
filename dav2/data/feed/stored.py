"""Stored frames: read from shards, held against their manifest, decoded, and kept while there is room."""

from __future__ import annotations

import hashlib
import threading
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.data import ranges
from dav2.data.feed.frame_table import FrameTable
from dav2.data.feed.read_ahead import ReadAhead
from dav2.data.store.depth_codec import decode_disparity_codes, decode_metric_codes
from dav2.data.store.layer_codec import decode_layer_codes
from dav2.data.store.packing import CodecError
from dav2.data.store.shards import ShardError

_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}


class Stored(NamedTuple):
    """A decoded frame.

    Attributes:
        rgb: uint8 (h, w, 3), reduced where no crop needs all pixels.
        codes: uint16 (H, W) of its target, at full size; (P, H, W), plane after plane, where layers are the target.
    """

    rgb: NDArray[np.uint8]
    codes: NDArray[np.uint16]


class StoredFrames:
    """Decoded frames by number.

    Args:
        frames: where they lie.
        crops: (height, width) of every crop that will be taken.
        enlarged: most that a frame is enlarged before it is cropped.
        cache_mb: frames are kept until they fill this much memory; a small data set is then decoded once.
    """

    def __init__(self, frames: FrameTable, crops: list[tuple[int, int]], enlarged: float, cache_mb: int) -> None:
        self.frames, self.crops, self.enlarged = frames, crops, enlarged
        self.ahead: ReadAhead | None = None
        self._cache: dict[int, Stored] = {}
        self._room = cache_mb * 2**20
        self._lock = threading.Lock()

    def has(self, number: int) -> bool:
        """Whether a frame is kept decoded."""
        return number in self._cache

    def load(self, numbers: set[int]) -> dict[int, Stored]:
        """Decoded frames, from the cache where they are there; the rest is read file by file in order of offset.

        Raises:
            ShardError: the bytes of a frame are not those that its manifest lists, or do not decode.
        """
        found = {n: self._cache[n] for n in numbers if n in self._cache}
        wanted = sorted(numbers - found.keys())
        blocks, each = self._read(wanted), self.frames.members
        for place, number in enumerate(wanted):
            image, *targets = blocks[place * each : (place + 1) * each]
            found[number] = self._decode(number, image, targets)
            self._remember(number, found[number])
        return found

    def _read(self, numbers: list[int]) -> list[bytes]:
        """Image and targets of each frame, one after the other."""
        requests = [self.frames.requests(n) for n in numbers]
        # Asked for together: depth lies beside its image, so one request of an object store brings both.
        direct = [place for several in requests for place in several]
        if self.ahead is None:
            return ranges.read_ranges(direct)
        near = [self.ahead.nearest(n, several) for n, several in zip(numbers, requests, strict=True)]
        try:
            return ranges.read_ranges([place for several in near for place in several])
        except FileNotFoundError:
            # A process that is two windows further has deleted the stretch.
            return ranges.read_ranges(direct)

    def _decode(self, number: int, image: bytes, targets: list[bytes]) -> Stored:
        # A JPEG shows damage as a smear that decodes without complaint. Stored depth carries a checksum of its own.
        if hashlib.sha256(image).digest()[:8] != self.frames.image_digest(number):
            raise ShardError(f"{self._where(number)}: the image is not the one that was ingested; ingest it again")
        rgb = cv2.imdecode(
            np.frombuffer(image, np.uint8), _REDUCED[self._reduction(number)] | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if rgb is None:
            raise ShardError(f"{self._where(number)}: the image does not decode; ingest this source again")
        try:
            codes = self._codes(number, targets)
        except CodecError as error:
            raise ShardError(f"{self._where(number)}: {error}") from error
        return Stored(rgb.astype(np.uint8, copy=False), codes)

    def _codes(self, number: int, targets: list[bytes]) -> NDArray[np.uint16]:
        if self.frames.layers:
            pairs = zip(self.frames.layers, targets, strict=True)
            planes = [decode_layer_codes(quantity, target) for quantity, target in pairs]
            if len({each.shape[1:] for each in planes}) > 1:
                raise CodecError("its layers are not of one size")
            return np.concatenate(planes)
        label = self.frames.label_range(number)
        if label is None:
            return decode_metric_codes(targets[0])
        return decode_disparity_codes(targets[0], label.codec, label.bits)

    def _reduction(self, number: int) -> int:
        """Factor by which a JPEG is shrunk while decoding: the largest that leaves at least the pixels any crop needs.

        A function of the frame and the settings alone, so that a cached frame is the one that would be decoded again.
        """
        if not self.frames.is_jpeg(number):
            return 1
        height, width = self.frames.shape(number)
        need = max(max(h / height, w / width) for h, w in self.crops) * self.enlarged
        return next((factor for factor in (8, 4, 2) if need * factor <= 1), 1)

    def _remember(self, number: int, stored: Stored) -> None:
        """Keep a frame while there is room. Nothing is thrown out: in epochs, the oldest would be needed first."""
        cost = stored.rgb.nbytes + stored.codes.nbytes
        with self._lock:
            if cost <= self._room and number not in self._cache:
                self._cache[number] = stored
                self._room -= cost

    def _where(self, number: int) -> str:
        return f"{self.frames.requests(number)[0][0]}: frame '{self.frames.key(number)}'"
