"""Rates on this machine: the forward pass, decoding and encoding."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from dav2 import machine
from dav2.data import images
from dav2.data.store import depth_codec
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.preprocess import preprocess
from dav2.pseudo_label import columns


def forward_rate(
    size: str, input_size: int, precision: machine.Setting, batch: int, seconds: float = 5.0
) -> tuple[float, machine.Precision]:
    """Images per second of the bare forward pass of a square batch with random weights, and in which precision.

    On the device that :func:`dav2.machine.device` gives.
    """
    device = machine.device()
    chosen = machine.precision(precision, device)
    dtype = chosen.dtype
    model = build(size).to(device, dtype).eval()
    inputs = torch.zeros(batch, 3, input_size, input_size, device=device, dtype=dtype)

    def once() -> None:
        with torch.inference_mode():
            model(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return batch / repeat(once, seconds), chosen


def host_seconds(jpeg: bytes, input_size: int, codec: str, bits: int, seconds: float = 2.0) -> float:
    """One core's time for a photograph besides the forward pass: decode, resize, measure, encode.

    The photograph's own brightness stands in for the label.
    """

    def once() -> None:
        planes = preprocess(images.decode(jpeg, "photograph").rgb, input_size)
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
