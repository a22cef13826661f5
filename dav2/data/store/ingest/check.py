"""Look at a data set without writing anything: what is there, what is missing, what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from dav2.data.frame import Frame
from dav2.data.raw.sources import Item, Source
from dav2.data.raw.suspicions import Suspicions
from dav2.data.store.depth_codec import metric_codes
from dav2.data.store.ingest.shard import Limits, check_frame
from dav2.data.store.ingest.statistics import depth_statistics
from dav2.failures import reason


@dataclass
class Findings:
    """What a look at a data set found.

    ``frames`` were listed and ``read`` of them opened; ``sizes`` counts their (width, height); ``depth`` holds (least,
    median, greatest finite depth, share known, share sky) of each opened frame that has depth; ``layers`` counts the
    frames that have each; ``problems`` names file
    and reason of each that cannot be used; ``suspicions`` are sentences on what looks wrong in those that can;
    ``shown`` are some of the frames, evenly spread.
    """

    frames: int
    scenes: int
    splits: dict[str, int]
    notes: list[str]
    read: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    with_camera: int = 0
    depth: list[tuple[float, ...]] = field(default_factory=list)
    layers: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[str, str]] = field(default_factory=list)
    suspicions: list[str] = field(default_factory=list)
    shown: list[Frame] = field(default_factory=list)


def look(
    source: Source,
    sample: int | None,
    limits: Limits,
    show: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """List a source and open ``sample`` of its frames, evenly spread (``None``: all), and all known to be bad.

    Args:
        limits: what ingestion would refuse is a problem here as well.
        show: frames to keep for a picture.
        progress: told how many frames were opened, of how many.

    Raises:
        SourceError: there is no data at all.
    """
    items = source.index()
    splits = Counter(item.split or "(by scene)" for item in items)
    found = Findings(len(items), len({item.scene for item in items}), dict(splits), source.notes())
    chosen, suspicions = list(_spread(items, sample)), Suspicions()
    kept = set(np.linspace(0, max(len(chosen) - 1, 0), show).round().astype(int).tolist())
    for number, item in enumerate(chosen):
        progress(number, len(chosen))
        found.read += 1
        try:
            frame = source.read(item)
            check_frame(frame, limits)
            statistics = None if frame.depth is None else depth_statistics(metric_codes(frame.depth))
        except Exception as error:
            found.problems.append((item.key, reason(error)))
            continue
        found.sizes[(frame.rgb.shape[1], frame.rgb.shape[0])] += 1
        found.layers.update(quantity.value for quantity in frame.layers)
        found.with_camera += frame.intrinsics is not None
        if statistics is not None:
            found.depth.append(tuple(statistics.values()))
            suspicions.add(frame)
        if number in kept:
            found.shown.append(frame)
    found.suspicions = suspicions.said()
    return found


def _spread(items: list[Item], sample: int | None) -> Iterator[Item]:
    bad = [item for item in items if "refused" in item.extra]
    others = [item for item in items if "refused" not in item.extra]
    yield from bad
    if sample is None or sample >= len(others):
        yield from others
        return
    for index in np.linspace(0, len(others) - 1, sample).round().astype(int):
        yield others[index]
