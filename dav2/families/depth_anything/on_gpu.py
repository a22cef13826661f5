"""Inference on a GPU: photographs go there as bytes, and small batches of a shape that comes again as one graph.

On the host a photograph of a megapixel takes longer to be resized and normalised than a GPU takes for the network. And
of a single photograph a GPU computes for 1.6 ms while Python takes 4.9 ms to tell it what (ViT-S, docs/gpu.md); a graph
tells it once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2.families.depth_anything.preprocess import MEAN, STD, check_image, network_shape

SMALL_BATCH = 4
"""Images up to which the time to launch a network is worth saving."""
SHAPES = 4
"""Graphs that are kept; each holds the memory of its own activations."""
SEEN = 2
"""Times that a shape must have come before it gets a graph: recording takes as long as some dozens of predictions."""


def preprocess_there(rgb: NDArray[np.uint8], input_size: int, patch: int, device: torch.device) -> Tensor:
    """What :func:`dav2.families.depth_anything.preprocess.preprocess` gives, computed on ``device``.

    The kernel is the same (Keys' cubic, a = −3/4, over pixel centres, edges repeated), positions are rounded otherwise:
    values differ by up to 1e-3 of a deviation.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        float32 (3, h, w).
    """
    check_image(rgb)
    shape = network_shape(rgb.shape[0], rgb.shape[1], input_size, patch)
    source = torch.from_numpy(np.ascontiguousarray(rgb))
    pixels = source.to(device).permute(2, 0, 1).float()
    if tuple(pixels.shape[1:]) != shape:
        pixels = F.interpolate(pixels[None], size=shape, mode="bicubic", align_corners=False)[0]
    std = np.asarray(STD, np.float32)
    scale, offset = (
        torch.from_numpy(each).view(3, 1, 1).to(device)
        for each in (1 / (255 * std), np.asarray(MEAN, np.float32) / std)
    )
    return pixels * scale - offset


class _Graph(NamedTuple):
    """A recorded network: ``given`` is filled, ``replay`` called, ``answer`` read."""

    given: Tensor
    answer: Tensor
    replay: Callable[[], object]


def record_cuda(network: Callable[[Tensor], Tensor], example: Tensor) -> _Graph:
    """``network`` for inputs like ``example`` as a CUDA graph."""
    given = example.clone()
    side = torch.cuda.Stream(example.device)
    side.wait_stream(torch.cuda.current_stream(example.device))
    with torch.cuda.stream(side):
        # Libraries choose their kernels and take their workspaces at the first calls, which no graph may record.
        for _ in range(3):
            network(given)
    torch.cuda.current_stream(example.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile: only what this one does must be recordable.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        answer = network(given)
    return _Graph(given, answer, graph.replay)


class Replayed:
    """Graphs of one network, by the shape of what goes in.

    A graph reads the weights where they lie, so new values are seen; weights that lie elsewhere make it void.

    Attributes:
        refused: why nothing more is recorded; empty as long as it is.
    """

    def __init__(self, record: Callable[[Callable[[Tensor], Tensor], Tensor], _Graph] = record_cuda) -> None:
        self.refused = ""
        self._record = record
        self._graphs: OrderedDict[Any, _Graph] = OrderedDict()
        self._seen: dict[Any, int] = {}
        self._lock = threading.Lock()

    def __call__(self, module: nn.Module, batch: Tensor) -> Tensor:
        """``module(batch)`` of (B, 3, H, W); by a graph where the batch is small and its shape came before."""
        if batch.shape[0] > SMALL_BATCH or self.refused:
            return cast(Tensor, module(batch))
        weights = hash(tuple(p.data_ptr() for p in module.parameters()))
        with self._lock:
            graph = self._found((weights, batch.device, batch.dtype, tuple(batch.shape)), module, batch)
            if graph is None:
                return cast(Tensor, module(batch))
            graph.given.copy_(batch)
            graph.replay()
            # The next replay writes over it.
            return graph.answer.clone()

    def _found(self, key: Any, module: nn.Module, batch: Tensor) -> _Graph | None:
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= SEEN:
            return None
        for other in [each for each in self._graphs if each[0] != key[0]]:
            del self._graphs[other]
        while len(self._graphs) >= SHAPES:
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = self._record(module, batch)
        except RuntimeError as error:
            # Something in the network cannot be recorded here, or there is no memory for it: all goes on without.
            self.refused = str(error).partition("\n")[0]
            self._graphs.clear()
            return None
        return self._graphs[key]


_REPLAYED: WeakKeyDictionary[nn.Module, Replayed] = WeakKeyDictionary()


def predict_there(module: nn.Module, batch: Tensor) -> Tensor:
    """``module(batch)`` on a GPU, by a graph where that saves time."""
    if module not in _REPLAYED:
        _REPLAYED[module] = Replayed()
    return _REPLAYED[module](module, batch)
