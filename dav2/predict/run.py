"""A list of images and videos through a model, past whatever cannot be read."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.data.images import decode
from dav2.families.depth_anything.model import DepthAnything
from dav2.families.depth_anything.preprocess import network_shape
from dav2.pictures import Palette
from dav2.predict.inputs import Failure, Input
from dav2.predict.writers import WRITERS, Prediction, exif_focal, write

# What reading, decoding, predicting or writing one file may raise; anything else is a fault of ours and must surface.
BAD_FILE = (OSError, ValueError)
READERS = 2
"""Threads that read and decode ahead of the model, and as many that encode and write behind it."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to predict.

    Attributes:
        out: output folder.
        kinds: names in :data:`dav2.predict.writers.WRITERS`.
        input_size: least short side the network sees; ``None`` is the model's native one.
        batch: most images per forward pass.
        colormap: a matplotlib colour map.
        focal: focal length in pixels for point clouds; ``None`` takes each file's EXIF data.
    """

    out: Path
    kinds: list[str] = field(default_factory=lambda: ["png16", "color"])
    input_size: int | None = None
    batch: int = 1
    colormap: str = "Spectral_r"
    focal: float | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in WRITERS]
        if unknown or not self.kinds:
            raise ValueError(f"cannot save '{','.join(unknown)}'; there are: {', '.join(WRITERS)}")


@dataclass(frozen=True, slots=True)
class _Loaded:
    source: Input
    rgb: NDArray[np.uint8]
    focal: float | None


def predict(
    model: DepthAnything, inputs: list[Input], options: Options, done: Callable[[Input], None]
) -> list[Failure]:
    """Predict every input and write its files.

    Args:
        done: called for each input that is finished, well or not.

    Returns:
        what could not be predicted, and why; the rest is written.
    """
    from dav2.predict.video import predict_video

    if "ply" in options.kinds and not model.config.metric:
        raise ValueError("--save ply needs a metric model; this one predicts relative disparity")
    palette = Palette(options.colormap)
    failures = _predict_images(model, [i for i in inputs if not i.video], options, palette, done)
    for source in inputs:
        if source.video:
            try:
                predict_video(model, source, options, palette)
            except BAD_FILE as error:
                failures.append(Failure(source.path, reason(error)))
            done(source)
    return failures


def _predict_images(
    model: DepthAnything, inputs: list[Input], options: Options, palette: Palette, done: Callable[[Input], None]
) -> list[Failure]:
    failures: list[Failure] = []
    input_size = options.input_size or model.config.input_size
    writing: deque[tuple[Input, Future[list[Path]]]] = deque()

    def settle(limit: int) -> None:
        while len(writing) > limit:
            source, future = writing.popleft()
            error = future.exception()
            if isinstance(error, BAD_FILE):
                failures.append(Failure(source.path, reason(error)))
            elif error is not None:
                raise error
            done(source)

    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(READERS) as writers:
        loaded = _loaded(inputs, options, input_size, readers, failures, done)
        for group in _batches(loaded, input_size, options.batch):
            try:
                maps = model.infer_images([item.rgb for item in group], options.input_size)
            except BAD_FILE as error:
                for item in group:
                    failures.append(Failure(item.source.path, reason(error)))
                    done(item.source)
                continue
            for item, depth in zip(group, maps, strict=True):
                prediction = Prediction(item.rgb, depth, model.config.metric, item.focal)
                stem = options.out / item.source.name
                writing.append((item.source, writers.submit(write, prediction, options.kinds, palette, stem)))
            settle(2 * READERS)
        settle(0)
    return failures


def _loaded(
    inputs: list[Input],
    options: Options,
    input_size: int,
    pool: ThreadPoolExecutor,
    failures: list[Failure],
    done: Callable[[Input], None],
) -> Iterator[_Loaded]:
    """Decoded inputs in order, a few read ahead; those that cannot be read go to ``failures``."""
    waiting: deque[tuple[Input, Future[_Loaded]]] = deque()
    rest = iter(inputs)
    while True:
        while len(waiting) < 2 * READERS and (source := next(rest, None)) is not None:
            waiting.append((source, pool.submit(_load, source, options, input_size)))
        if not waiting:
            return
        source, future = waiting.popleft()
        try:
            yield future.result()
        except BAD_FILE as error:
            failures.append(Failure(source.path, reason(error)))
            done(source)


def _load(source: Input, options: Options, input_size: int) -> _Loaded:
    with source.open() as file:
        data = file.read()
    rgb = decode(data, source.path).rgb
    network_shape(rgb.shape[0], rgb.shape[1], input_size)  # refuses what the network cannot take, for this file only
    focal = options.focal
    if focal is None and "ply" in options.kinds:
        focal = exif_focal(data)
    return _Loaded(source, rgb, focal)


def _batches(items: Iterator[_Loaded], input_size: int, batch: int) -> Iterator[list[_Loaded]]:
    """Groups of equal network shape, at most ``batch`` long; at most four batches' worth of images wait for company."""
    waiting: dict[tuple[int, int], list[_Loaded]] = defaultdict(list)
    for item in items:
        shape = network_shape(item.rgb.shape[0], item.rgb.shape[1], input_size)
        waiting[shape].append(item)
        if len(waiting[shape]) == batch:
            yield waiting.pop(shape)
        elif sum(map(len, waiting.values())) >= 4 * batch:
            yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
    yield from waiting.values()


def reason(error: BaseException) -> str:
    """An error as one line."""
    if isinstance(error, IsADirectoryError):
        return "is a folder"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return " ".join(str(error).split()) or type(error).__name__
