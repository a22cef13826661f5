"""A list of images and videos through a model, past whatever cannot be read."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dav2 import families, limits
from dav2.ahead import begun_ahead
from dav2.data.images import LARGE, decode, pixels_of
from dav2.failures import reason
from dav2.families.family import Model
from dav2.files import output_folder, read_bounded
from dav2.maps import Maps, Quantity
from dav2.memory import return_freed_memory
from dav2.pictures import Palette
from dav2.predict.infer import infer
from dav2.predict.inputs import Failure, Input
from dav2.predict.metric import Measure
from dav2.predict.options import Options
from dav2.predict.tiled import Tiled
from dav2.predict.video import PICTURES, predict_video
from dav2.predict.writers import Prediction, exif_focal, write

Shape = Callable[[NDArray[np.uint8]], tuple[int, int]]
"""Network shape of an image; raises ValueError where the network cannot take it."""
READERS = 2
"""Threads that read and decode ahead of the model, and as many that encode and write behind it; on a GPU the cores have
nothing else to do, and share themselves out among both."""
MAX_BYTES = 512 * 2**20
"""Largest image file that is read."""


@dataclass
class Outcome:
    """What came of it: inputs that failed, each once, and what else a person should hear of some."""

    failures: list[Failure] = field(default_factory=list)
    remarks: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Loaded:
    source: Input
    rgb: NDArray[np.uint8]
    focal: float | None
    remarks: tuple[str, ...]


def predict(model: Model, inputs: list[Input], options: Options, done: Callable[[Input], None]) -> Outcome:
    """Predict every input and write its files. Whatever one input raises is its failure; the others go on.

    An output folder that was not there, and into which nothing could be written, is not there afterwards.

    Args:
        done: called for each input that is finished, well or not.

    Raises:
        ValueError: the options do not fit the model, or name what there is not.
        OSError: the output folder cannot be made.
    """
    if options.measure is not None and not model.quantity.is_depth:
        raise ValueError(f"metres can be told of depth alone; this model predicts {model.quantity.unit}")
    if "ply" in options.kinds and model.quantity is not Quantity.METRES and options.measure is None:
        raise ValueError(
            f"--save ply needs a metric model, --sparse or --metric-from; this one predicts {model.quantity.unit}"
        )
    if options.facing is not None and "ply" not in options.kinds:
        raise ValueError("--normals-from is for point clouds; it needs --save ply")
    if options.input_size is not None:
        families.of_model(model).check_input_size(model, options.input_size)
    if options.tiling is not None:
        model = Tiled(model, options.tiling)
    palette = Palette(options.colormap)
    outcome = Outcome()
    with output_folder(options.out):
        _predict_images(model, [i for i in inputs if not i.video], options, palette, done, outcome)
        for source in inputs:
            if source.video:
                try:
                    _predict_one_video(model, source, options, palette, inputs)
                except Exception as error:
                    outcome.failures.append(Failure(source.path, reason(error)))
                done(source)
    return outcome


def _predict_one_video(model: Model, source: Input, options: Options, palette: Palette, inputs: list[Input]) -> None:
    if options.measure is not None:
        raise ValueError("--sparse and --metric-from are for photographs; frames of a video would not agree")
    _refuse_overwriting(source, options, inputs)
    damage = predict_video(model, source, options, palette)
    if damage is not None:
        raise ValueError(f"{damage}; what is sound is written")


def _predict_images(
    model: Model,
    inputs: list[Input],
    options: Options,
    palette: Palette,
    done: Callable[[Input], None],
    outcome: Outcome,
) -> None:
    shape = partial(_network_shape, model, options.input_size)
    writing: deque[tuple[Input, Future[list[Path]]]] = deque()
    places = frozenset(source.place for source in inputs)

    def fail(source: Input, error: BaseException) -> None:
        outcome.failures.append(Failure(source.path, reason(error)))
        done(source)

    def settle(limit: int) -> None:
        while len(writing) > limit:
            source, future = writing.popleft()
            error = future.exception()
            fail(source, error) if error is not None else done(source)

    threads = _threads(model)
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
        loaded = _loaded(inputs, options, shape, readers, 2 * threads, fail)
        for group in _batches(loaded, shape, options.batch):
            for item, found in zip(group, infer(model, [item.rgb for item in group], options.input_size), strict=True):
                outcome.remarks += [Failure(item.source.path, remark) for remark in item.remarks]
                try:
                    maps, remark = _measured(item, found, options.measure)
                    normals = None if options.facing is None else options.facing(item.rgb)
                except Exception as error:
                    fail(item.source, error)
                    continue
                outcome.remarks += [Failure(item.source.path, remark)] if remark else []
                prediction = Prediction(item.rgb, maps, item.focal, normals)
                stem = options.out / item.source.name
                writing.append((item.source, writers.submit(write, prediction, options.kinds, palette, stem, places)))
            settle(0 if group[0].rgb.size > 3 * LARGE else 2 * threads)
        settle(0)


def _measured(
    item: _Loaded, found: Maps[NDArray[np.float32]] | Exception, measure: Measure | None
) -> tuple[Maps[NDArray[np.float32]], str]:
    if isinstance(found, Exception):
        raise found
    return (found, "") if measure is None else measure(item.source, item.rgb, found)


def _threads(model: Model) -> int:
    parameter = next(cast(nn.Module, model).parameters(), None)
    return max(READERS, limits.cores() // 2) if parameter is not None and parameter.is_cuda else READERS


def _network_shape(model: Model, input_size: int | None, rgb: NDArray[np.uint8]) -> tuple[int, int]:
    return model.network_shape(rgb.shape[0], rgb.shape[1], input_size)


def _loaded(
    inputs: list[Input],
    options: Options,
    shape: Shape,
    pool: ThreadPoolExecutor,
    most: int,
    fail: Callable[[Input, BaseException], None],
) -> Iterator[_Loaded]:
    """Decoded inputs in order, at most ``most`` read ahead as long as they are of usual size."""
    ahead = 1
    begun = ((source, pool.submit(_load, source, options, shape)) for source in inputs)
    with closing(begun_ahead(begun, lambda: ahead, lambda each: each[1].cancel())) as loading:
        for source, future in loading:
            try:
                item = future.result()
            except Exception as error:
                fail(source, error)
                continue
            ahead = 1 if item.rgb.size > 3 * LARGE else most
            yield item


def _load(source: Input, options: Options, shape: Shape) -> _Loaded:
    with source.open() as file:
        data = read_bounded(cast(BinaryIO, file), MAX_BYTES, source.path)
    if pixels_of(data, source.path) > LARGE:
        # Images of that size go through one at a time; what one leaves behind must not add to what the next one takes.
        return_freed_memory()
    rgb, _, remarks = decode(data, source.path)
    shape(rgb)  # refuses what the network cannot take, for this file only
    focal = options.focal
    if focal is None and "ply" in options.kinds:
        focal, remark = exif_focal(data, rgb.shape, source.path)
        remarks += (remark,) if remark else ()
    return _Loaded(source, rgb, focal, remarks)


def _refuse_overwriting(source: Input, options: Options, inputs: list[Input]) -> None:
    """An input that a video's output would take the place of is not to be lost."""
    stem = options.out / source.name
    targets = {os.path.realpath(stem.with_name(stem.name + ending)) for ending in PICTURES.values()}
    overwritten = targets & {other.place for other in inputs}
    if overwritten:
        raise ValueError(f"its output would overwrite the input {min(overwritten)}; choose another --out")


def _batches(items: Iterator[_Loaded], shape: Shape, batch: int) -> Iterator[list[_Loaded]]:
    """Groups of equal network shape, at most ``batch`` long; at most four batches' worth of images wait for company."""
    waiting: dict[tuple[int, int], list[_Loaded]] = defaultdict(list)
    for item in items:
        seen = shape(item.rgb)
        waiting[seen].append(item)
        if len(waiting[seen]) == batch:
            yield waiting.pop(seen)
        elif sum(map(len, waiting.values())) >= 4 * batch:
            yield waiting.pop(max(waiting, key=lambda key: len(waiting[key])))
    yield from waiting.values()
