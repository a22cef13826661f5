"""Rates on this machine: the forward pass, decoding and encoding."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from dav2.data import images
from dav2.data.store import depth_codec
from dav2.families.teaching import Teaching
from dav2.pseudo_label import columns

Prepare = Callable[[NDArray[np.uint8], int], NDArray[np.float32]]
"""uint8 (H, W, 3) and an input size → network input (3, h, w), as :meth:`Teaching.prepare` does it."""


def forward_rate(teaching: Teaching, input_size: int, batch: int, seconds: float = 5.0) -> float:
    """Images per second that a teacher labels on its device, in square batches of ``input_size`` pixels."""
    inputs = torch.zeros(batch, 3, input_size, input_size, device=teaching.device)
    keys = [str(number) for number in range(batch)]

    def once() -> None:
        with torch.inference_mode():
            teaching.predict(inputs, keys)
        if teaching.device.type == "cuda":
            torch.cuda.synchronize()

    return batch / repeat(once, seconds)


def host_seconds(jpeg: bytes, prepare: Prepare, input_size: int, codec: str, bits: int, seconds: float = 2.0) -> float:
    """One core's time for a photograph besides the forward pass: decode, prepare, measure, encode.

    The photograph's own brightness stands in for the label.
    """

    def once() -> None:
        planes = prepare(images.decode(jpeg, "photograph").rgb, input_size)
        label: NDArray[np.float32] = np.ascontiguousarray(planes.mean(0))
        depth_codec.encode_disparity(label, bits, codec)
        columns.relative_range(label)
        columns.saturated_share(label, bits)
        columns.edge_sharpness(label, label)

    return repeat(once, seconds)


def repeat(action: Callable[[], None], seconds: float) -> float:
    """Median seconds of ``action`` over at least three runs and about ``seconds`` in all, after one to warm up."""
    action()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        begun = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken))
