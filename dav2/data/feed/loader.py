"""Shards → training batches.

:meth:`TrainingData.batch` is a pure function of (seed, index): which frames, how they are cropped and augmented,
nothing depends on ranks, workers, caches or what was read before. Resuming at step N means asking for batch N.
Decoding is done by threads, since OpenCV and zlib let go of the interpreter; batches come in order whatever thread
finishes first.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dav2.ahead import begun_ahead
from dav2.data import storage
from dav2.data.feed import transforms
from dav2.data.feed.colours import unfinished
from dav2.data.feed.frame_table import FrameTable, Part
from dav2.data.feed.layers import layer_targets
from dav2.data.feed.mixture import MixedOrder, Portion
from dav2.data.feed.read_ahead import FOLDER, ReadAhead, worth_it
from dav2.data.feed.sampler import BATCH, FRAME, VIEW, FrameOrder, random_stream
from dav2.data.feed.stored import Stored, StoredFrames
from dav2.data.feed.targets import SPACES, label_target, normalised, target_tables, unit_range
from dav2.data.feed.transforms import Colour
from dav2.maps import Quantity

__all__ = ["Augment", "Batch", "Part", "TrainingData"]


def _step_back() -> None:
    """Give this thread what the training leaves over, where both share the processor's cores.

    OpenMP shares the work out evenly, so a step waits for the thread that had to make room for the loader.
    """
    if sys.platform == "linux" and not torch.cuda.is_available():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


class Augment(Protocol):
    """What :class:`TrainingData` reads of ``params.AugmentParams``."""

    @property
    def flip(self) -> float:
        """Probability of mirroring."""
        ...

    @property
    def jitter(self) -> float:
        """Probability of colour jitter."""
        ...

    @property
    def blur(self) -> float:
        """Probability of blur."""
        ...

    @property
    def cutmix(self) -> float:
        """Probability of CutMix."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """Range of enlargement before cropping."""
        ...

    @property
    def crops(self) -> Sequence[tuple[int, int]]:
        """Further (height, width) of crops, in pixels."""
        ...


class Batch(TypedDict):
    """One rank's share of a batch.

    ``image`` float32 (b, 3, H, W), ImageNet-normalised. ``target`` float32 (b, H, W): nearness in [0, 1], or metres; 0
    where masked. ``mask`` bool (b, H, W): where the target counts. ``region`` uint8 (b, H, W): 1 inside a CutMix
    rectangle, whose pixels come from another photograph and are normalised on their own. ``keys`` names the frames; a
    CutMix partner's key follows after ``+``.

    Where layers are the target: ``target`` float32 (b, C, H, W), their channels one after the other, and ``mask`` bool
    (b, L, H, W), one plane a layer; see :func:`dav2.data.feed.layers.layer_targets`.
    """

    image: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    region: torch.Tensor
    keys: list[str]
    index: int


class _Sample(NamedTuple):
    """``colour`` is what is still to be done to ``rgb``."""

    rgb: NDArray[np.uint8]
    target: NDArray[np.float32]
    mask: NDArray[np.bool_]
    colour: Colour


class TrainingData:
    """Batches of labelled crops from shards.

    Args:
        parts: data sets, mixed in proportion to their frames, or as ``mix`` says.
        crop: side of the square crop in pixels; ``augment.crops`` adds other shapes, one shape per batch.
        batch: frames per batch over all ranks.
        seed: of order and augmentation.
        rank, world: this process and how many there are; ``batch`` must be divisible by ``world``.
        target: one of :data:`dav2.data.feed.targets.SPACES`.
        layers: what the batches hold instead of depth, in this order; frames without one of them are left out.
        augment: see ``params.AugmentParams``.
        workers: threads that decode; 0 means the one thread that prefetches.
        min_depth, max_depth: metres outside (min_depth, max_depth] are masked, but for ``disparity``.
        cache_mb: decoded frames are kept until they fill this much memory; a small data set is then decoded once.
        views: a frame is augmented in so many ways, one after the other, epoch by epoch; 0 is a new way every time.
        raw: leave colours, CutMix of pixels and normalisation to the device that trains: a batch then is what
            :func:`dav2.data.feed.colours.finished` takes, a quarter of the bytes.
        mix: a portion for each part: a batch then comes from one part and has its crop. Nothing is read ahead.

    Raises:
        ManifestError: the parts cannot be used.
        ValueError: ``batch`` is not divisible by ``world``, or ``mix`` does not fit the parts.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        crop: int,
        batch: int,
        seed: int,
        augment: Augment,
        rank: int = 0,
        world: int = 1,
        target: str = "disparity",
        layers: Sequence[Quantity] = (),
        workers: int = 0,
        min_depth: float = 1e-3,
        max_depth: float | None = None,
        cache_mb: int = 512,
        mix: Sequence[Portion] = (),
        views: int = 0,
        raw: bool = False,
    ) -> None:
        if batch % world:
            raise ValueError(f"batch {batch} cannot be shared by {world} ranks; make it a multiple of {world}")
        if target not in SPACES:
            raise ValueError(f"target must be one of {', '.join(SPACES)}, not '{target}'")
        self.target, self.metres = target, target == "metres"
        self.frames = FrameTable(parts, metres=self.metres, layers=layers)
        self.order = FrameOrder(self.frames.shard_sizes, seed)
        sizes = (self.frames.shard_sizes, self.frames.part_sizes)
        self.mixed = MixedOrder(*sizes, mix, batch, seed) if mix else None
        self._own_crops = [portion.crop for portion in mix]
        self.seed, self.global_batch, self.rank, self.world = seed, batch, rank, world
        self.crops = [(crop, crop), *((int(h), int(w)) for h, w in augment.crops)]
        self.augment, self.workers, self.views, self.raw = augment, workers, views, raw
        self.table, self.valid = target_tables(target, min_depth, max_depth)
        every = [*self.crops, *(own for own in self._own_crops if own is not None)]
        self._stored = StoredFrames(self.frames, every, augment.scale[1], cache_mb)
        # The threads here are the parallelism; OpenCV's own would fight them and the training for the same cores.
        cv2.setNumThreads(1)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def repeated(self) -> int:
        """Frames left out because another part holds the same picture."""
        return self.frames.repeated

    def iterate(self, start: int = 0) -> Generator[Batch]:
        """Batches ``start``, ``start`` + 1, … without end, made ahead of time in the background."""
        threads = max(1, self.workers)
        with self._reading_ahead(), ThreadPoolExecutor(threads, "loader", initializer=_step_back) as pool:
            begun = (pool.submit(self.batch, index) for index in itertools.count(start))
            with contextlib.closing(begun_ahead(begun, threads + 2, Future.cancel)) as batches:
                for batch in batches:
                    yield batch.result()

    @contextlib.contextmanager
    def _reading_ahead(self) -> Iterator[None]:
        """Fetch what lies in an object store in long stretches, where this machine needs most of them."""
        remote = any(storage.is_remote(path) for path in self.frames.files)
        if self.mixed is not None or not remote or not worth_it(self.world):
            yield
            return
        folder = os.environ.get(FOLDER)
        with ReadAhead(self.frames, self.order, self._stored.has, Path(folder) if folder else None) as ahead:
            self._stored.ahead = ahead
            try:
                yield
            finally:
                self._stored.ahead = None

    def batch(self, index: int) -> Batch:
        """Batch ``index`` ≥ 0 of this rank."""
        share = self.global_batch // self.world
        first = index * self.global_batch
        positions = range(first + self.rank * share, first + (self.rank + 1) * share)
        partners = {p: partner for p in positions if (partner := self._partner(p)) is not None}
        order = self.order if self.mixed is None else self.mixed
        numbers = {p: order.frame(p) for p in (*positions, *partners.values())}
        if self._stored.ahead is not None:
            self._stored.ahead.approach(first)
        stored = self._stored.load(set(numbers.values()))
        crop = self._crop(index)
        region = np.zeros((share, *crop), np.uint8)
        # A picture that is cut into another one is mostly a member of the batch itself: each is made once.
        made = {p: self._sample(p, number, stored, crop) for p, number in numbers.items()}
        samples, keys = [], []
        for row, position in enumerate(positions):
            sample, key = made[position], self.frames.key(numbers[position])
            if position in partners:
                other = partners[position]
                sample = self._mix(sample, made[other], position, region[row])
                key += f"+{self.frames.key(numbers[other])}"
            samples.append(sample)
            keys.append(key)
        rest: dict[str, object] = {
            "target": torch.from_numpy(np.stack([s.target for s in samples])),
            "mask": torch.from_numpy(np.stack([s.mask for s in samples])),
            "region": torch.from_numpy(region),
            "keys": keys,
            "index": index,
        }
        if self.raw:
            rows = list(made)
            cut = [rows.index(partners[p]) if p in partners else -1 for p in positions]
            pictures: dict[str, object] = unfinished([(s.rgb, s.colour) for s in made.values()], cut)
        else:
            pictures = {"image": normalised([s.rgb for s in samples])}
        return cast(Batch, {**pictures, **rest})

    def _crop(self, index: int) -> tuple[int, int]:
        if self.mixed is not None and (own := self._own_crops[self.mixed.source(index)]) is not None:
            return own
        if len(self.crops) == 1:
            return self.crops[0]
        return self.crops[int(random_stream(self.seed, BATCH, index).integers(len(self.crops)))]

    def _partner(self, position: int) -> int | None:
        """Position in the same global batch whose crop is cut into this one, if CutMix falls on it."""
        if self.augment.cutmix == 0 or self.global_batch == 1:
            return None
        rng = random_stream(self.seed, FRAME, position, 1)
        if rng.random() >= self.augment.cutmix:
            return None
        first = position - position % self.global_batch
        step = int(rng.integers(1, self.global_batch))
        return first + (position - first + step) % self.global_batch

    def _mix(self, sample: _Sample, patch: _Sample, position: int, region: NDArray[np.uint8]) -> _Sample:
        rng = random_stream(self.seed, FRAME, position, 2)
        top, left, bottom, right = transforms.cutmix_box(rng, *region.shape)
        region[top:bottom, left:right] = 1
        inside = region == 1
        return _Sample(
            sample.rgb if self.raw else np.where(inside[..., None], patch.rgb, sample.rgb),
            np.where(inside, patch.target, sample.target),
            np.where(inside, patch.mask, sample.mask),
            sample.colour,
        )

    def _sample(self, position: int, number: int, stored: dict[int, Stored], crop: tuple[int, int]) -> _Sample:
        rng = random_stream(self.seed, FRAME, position)
        if self.views:
            rng = random_stream(self.seed, VIEW, number, position // len(self) % self.views)
        rgb, codes = stored[number]
        # Drawn from the stored size, not from the decoded one, which may be reduced.
        geometry = transforms.draw_geometry(rng, self.frames.shape(number), crop, self.augment.scale, self.augment.flip)
        image = transforms.place_image(rgb, geometry)
        colour = transforms.draw_colour(rng, self.augment.jitter, self.augment.blur)
        if not self.raw:
            image = transforms.recolour(image, colour)
        if self.frames.layers:
            return _Sample(image, *layer_targets(self.frames.layers, codes, geometry), colour)
        label = self.frames.label_range(number)
        if label is not None:
            return _Sample(image, *label_target(codes, label, geometry), colour)
        placed = transforms.place_nearest(codes, geometry)
        target, mask = self.table[placed], self.valid[placed]
        return _Sample(image, target if self.metres else unit_range(target, mask), mask, colour)
