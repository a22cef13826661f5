"""Shards → training batches.

:meth:`TrainingData.batch` is a pure function of (seed, index): which frames, how they are cropped and augmented,
nothing depends on ranks, workers, caches or what was read before. Resuming at step N means asking for batch N.
Decoding is done by threads, since OpenCV and zlib let go of the interpreter; batches come in order whatever thread
finishes first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dav2.data import storage
from dav2.data.feed import transforms
from dav2.data.feed.frame_table import FrameTable, Part
from dav2.data.feed.read_ahead import FOLDER, ReadAhead, worth_it
from dav2.data.feed.sampler import BATCH, FRAME, FrameOrder, random_stream
from dav2.data.feed.stored import Stored, StoredFrames
from dav2.data.feed.targets import SPACES, label_target, normalised, target_tables, unit_range

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
    """

    image: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    region: torch.Tensor
    keys: list[str]
    index: int


class _Sample(NamedTuple):
    rgb: NDArray[np.uint8]
    target: NDArray[np.float32]
    mask: NDArray[np.bool_]


class TrainingData:
    """Batches of labelled crops from shards.

    Args:
        parts: data sets, mixed in proportion to their frames.
        crop: side of the square crop in pixels; ``augment.crops`` adds other shapes, one shape per batch.
        batch: frames per batch over all ranks.
        seed: of order and augmentation.
        rank, world: this process and how many there are; ``batch`` must be divisible by ``world``.
        target: one of :data:`dav2.data.feed.targets.SPACES`.
        augment: see ``params.AugmentParams``.
        workers: threads that decode; 0 means the one thread that prefetches.
        min_depth, max_depth: metres outside (min_depth, max_depth] are masked, but for ``disparity``.
        cache_mb: decoded frames are kept until they fill this much memory; a small data set is then decoded once.

    Raises:
        ManifestError: the parts cannot be used.
        ValueError: ``batch`` is not divisible by ``world``.
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
        workers: int = 0,
        min_depth: float = 1e-3,
        max_depth: float | None = None,
        cache_mb: int = 512,
    ) -> None:
        if batch % world:
            raise ValueError(f"batch {batch} cannot be shared by {world} ranks; make it a multiple of {world}")
        if target not in SPACES:
            raise ValueError(f"target must be one of {', '.join(SPACES)}, not '{target}'")
        self.metres = target == "metres"
        self.frames = FrameTable(parts, metres=self.metres)
        self.order = FrameOrder(self.frames.shard_sizes, seed)
        self.seed, self.global_batch, self.rank, self.world = seed, batch, rank, world
        self.crops = [(crop, crop), *((int(h), int(w)) for h, w in augment.crops)]
        self.augment, self.workers = augment, workers
        self.table, self.valid = target_tables(target, min_depth, max_depth)
        self._stored = StoredFrames(self.frames, self.crops, augment.scale[1], cache_mb)
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
            ahead: deque[Future[Batch]] = deque()
            try:
                for index in range(start, start + threads + 1):
                    ahead.append(pool.submit(self.batch, index))
                index = start + threads + 1
                while True:
                    ready = ahead.popleft()
                    ahead.append(pool.submit(self.batch, index))
                    index += 1
                    yield ready.result()
            finally:
                for future in ahead:
                    future.cancel()

    @contextlib.contextmanager
    def _reading_ahead(self) -> Iterator[None]:
        """Fetch what lies in an object store in long stretches, where this machine needs most of them."""
        if not any(storage.is_remote(path) for path in self.frames.files) or not worth_it(self.world):
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
        numbers = {p: self.order.frame(p) for p in {*positions, *partners.values()}}
        if self._stored.ahead is not None:
            self._stored.ahead.approach(first)
        stored = self._stored.load(set(numbers.values()))
        crop = self._crop(index)
        region = np.zeros((share, *crop), np.uint8)
        samples, keys = [], []
        for row, position in enumerate(positions):
            sample = self._sample(position, numbers[position], stored, crop)
            key = self.frames.key(numbers[position])
            if position in partners:
                other = partners[position]
                patch = self._sample(other, numbers[other], stored, crop)
                sample = self._mix(sample, patch, position, region[row])
                key += f"+{self.frames.key(numbers[other])}"
            samples.append(sample)
            keys.append(key)
        return Batch(
            image=normalised([s.rgb for s in samples]),
            target=torch.from_numpy(np.stack([s.target for s in samples])),
            mask=torch.from_numpy(np.stack([s.mask for s in samples])),
            region=torch.from_numpy(region),
            keys=keys,
            index=index,
        )

    def _crop(self, index: int) -> tuple[int, int]:
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
            np.where(inside[..., None], patch.rgb, sample.rgb),
            np.where(inside, patch.target, sample.target),
            np.where(inside, patch.mask, sample.mask),
        )

    def _sample(self, position: int, number: int, stored: dict[int, Stored], crop: tuple[int, int]) -> _Sample:
        rng = random_stream(self.seed, FRAME, position)
        rgb, codes = stored[number]
        # Drawn from the stored size, not from the decoded one, which may be reduced.
        geometry = transforms.draw_geometry(rng, self.frames.shape(number), crop, self.augment.scale, self.augment.flip)
        image = transforms.place_image(rgb, geometry)
        jitter, blur = rng.random(2)
        if jitter < self.augment.jitter:
            image = transforms.jitter(np.ascontiguousarray(image), rng)
        if blur < self.augment.blur:
            image = transforms.blur(np.ascontiguousarray(image), rng)
        label = self.frames.label_range(number)
        if label is not None:
            return _Sample(image, *label_target(codes, label, geometry))
        placed = transforms.place_nearest(codes, geometry)
        target, mask = self.table[placed], self.valid[placed]
        return _Sample(image, target if self.metres else unit_range(target, mask), mask)
