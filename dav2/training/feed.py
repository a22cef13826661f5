"""Batches on their way to the device: copied and finished ahead of the step that takes them.

On a GPU a thread of its own takes batches from the loader, lays them into pinned memory and starts copy and colours on
a stream of their own, so that both run beside the step before. On a processor there is nothing to run beside: a batch
is finished when it is asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from dav2.ahead import begun_ahead
from dav2.data.feed.colours import RAW, finished

AHEAD = 2
"""Batches that lie ready on a GPU."""


class _Ready(NamedTuple):
    batch: dict[str, object]
    event: torch.cuda.Event | None


def prepared(batch: Mapping[str, object], device: torch.device) -> dict[str, object]:
    """A batch as the task takes it: what the loader left to the device is done there, other batches go as they are."""
    if not all(name in batch for name in RAW):
        return dict(batch)
    there: dict[str, object] = {}
    for name, value in batch.items():
        if isinstance(value, Tensor):
            value = value.pin_memory() if device.type == "cuda" else value
            value = value.to(device, non_blocking=True)
        there[name] = value
    return finished(there)


@contextmanager
def feeding(
    batches: Generator[Mapping[str, object]], device: torch.device, ahead: int | None = None
) -> Iterator[Iterator[dict[str, object]]]:
    """``batches`` as the task takes them, ``ahead`` of them before their turn; the generator is closed at the end.

    Args:
        batches: from a loader, without end.
        ahead: 0 makes each when it is asked for, the default but on a GPU.
    """
    ahead = (AHEAD if device.type == "cuda" else 0) if ahead is None else ahead
    with closing(batches):
        if not ahead:
            yield (prepared(batch, device) for batch in batches)
            return
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with ThreadPoolExecutor(1, "feed") as pool:
            begun = (pool.submit(_next, batches, device, stream) for _ in itertools.count())
            with closing(begun_ahead(begun, ahead, Future.cancel)) as futures:
                yield (_taken(future.result(), device) for future in futures)


def _next(batches: Iterator[Mapping[str, object]], device: torch.device, stream: torch.cuda.Stream | None) -> _Ready:
    batch = next(batches)
    with torch.cuda.stream(stream) if stream is not None else nullcontext():
        return _Ready(prepared(batch, device), stream.record_event() if stream is not None else None)


def _taken(ready: _Ready, device: torch.device) -> dict[str, object]:
    if ready.event is not None:
        current = torch.cuda.current_stream(device)
        current.wait_event(ready.event)
        for value in ready.batch.values():
            if isinstance(value, Tensor) and value.is_cuda:
                # Its memory was taken on the other stream; it must not be given away before this one is done with it.
                value.record_stream(current)
    return ready.batch
