"""What every reader keeps, as a test: for readers of one's own, and for dav2's.

from dav2.data.raw.sources import open_source
from dav2.data.raw.testing import check_reader

def test_my_reader(tmp_path):
    ...write a few small frames to tmp_path...
    check_reader(lambda: open_source("mine", tmp_path, "mine"))
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np

from dav2.data.frame import KEY_PATTERN, Frame, FrameError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item, Source


def check_reader(open_it: Callable[[], Source], frames: int = 4) -> list[Frame]:
    """Hold a reader to what ingestion relies on.

    Args:
        open_it: opens the data set anew at every call.
        frames: how many are read, evenly spread.

    Returns:
        the frames that were read, for further tests.

    Raises:
        AssertionError: the message says what does not hold, of which frame.
    """
    source = open_it()
    items = source.index()
    _check_index(source, items)
    again = open_it()
    assert again.index() == items, "the same files must give the same frames in the same order, whoever opens them"
    # Frames are read in other processes than the one that listed them.
    elsewhere = pickle.loads(pickle.dumps(source))
    sound = [item for item in items if "refused" not in item.extra]
    chosen = [sound[n] for n in np.unique(np.linspace(0, len(sound) - 1, min(frames, len(sound))).astype(int))]
    found = []
    for item in chosen:
        frame = source.read(item)
        _check_frame(item, frame)
        _check_same(item, frame, elsewhere.read(pickle.loads(pickle.dumps(item))))
        found.append(frame)
    for item in (item for item in items if "refused" in item.extra):
        _check_refused(source, item)
    return found


def _check_index(source: Source, items: list[Item]) -> None:
    assert items, "there are no frames; a reader raises SourceError then"
    keys = [item.key for item in items]
    assert len(set(keys)) == len(keys), f"keys are not unique: {_twice(keys)}"
    for item in items:
        assert KEY_PATTERN.fullmatch(item.key), f"{item.key}: a key is made of a-z 0-9 _ - and /; use make_key"
        assert item.key.startswith(f"{source.name}/"), f"{item.key}: the first part of a key is the source's name"
        assert item.split in ("", "train", "val", "test"), f"{item.key}: no split is called '{item.split}'"
        assert item.scene, f"{item.key}: has no scene, so that nothing says what must not be torn apart"
        assert item.paths, f"{item.key}: names no file"
    assert source.licence, "licence must say something, be it 'unknown'"
    assert all(isinstance(note, str) for note in source.notes())
    if isinstance(source, Reader):
        accounts = source.accounts
        assert accounts.found == accounts.used + accounts.left_out.total() + accounts.failed


def _twice(keys: list[str]) -> str:
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _check_frame(item: Item, frame: Frame) -> None:
    assert frame.key == item.key, f"{item.key}: the frame is called {frame.key}"
    rgb, depth = frame.rgb, frame.depth
    assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3, f"{item.key}: rgb must be uint8 (H, W, 3)"
    if depth is None:
        return
    assert depth.dtype == np.float32, f"{item.key}: depth must be float32, not {depth.dtype}"
    assert depth.shape == rgb.shape[:2], f"{item.key}: depth is {depth.shape}, the image {rgb.shape[:2]}"
    known = depth[~np.isnan(depth)]
    assert known.size, f"{item.key}: no depth is known; such a frame is refused with FrameError"
    assert (known > 0).all(), f"{item.key}: depth ≤ 0; what is not known is NaN, sky is +inf"


def _check_same(item: Item, frame: Frame, other: Frame) -> None:
    """Two readings of one frame are equal, bit for bit."""
    assert np.array_equal(frame.rgb, other.rgb), f"{item.key}: another process reads another picture"
    if frame.depth is not None:
        same = other.depth is not None and np.array_equal(frame.depth, other.depth, equal_nan=True)
        assert same, f"{item.key}: another process reads other depth"
    for quantity, values in frame.layers.items():
        there = other.layers.get(quantity)
        same = there is not None and np.array_equal(values, there, equal_nan=True)
        assert same, f"{item.key}: another process reads other {quantity}"


def _check_refused(source: Source, item: Item) -> None:
    try:
        source.read(item)
    except FrameError as error:
        assert item.paths[0] in str(error), f"{item.key}: the reason does not name the file: {error}"
    else:
        raise AssertionError(f"{item.key} is refused, but can be read")
