"""A network in an ONNX file that takes one photograph and gives one map, behind the interface of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2 import limits
from dav2.extras import MissingExtraError, require
from dav2.failures import reason
from dav2.families.directory import WeightsError
from dav2.files import open_regular, read_bounded
from dav2.maps import Maps, Quantity

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnxruntime import InferenceSession

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
LARGEST = 2_000_000_000
"""Bytes of an ONNX file: one protocol buffer cannot hold more."""


_UNKNOWN = re.compile(r"No Op registered for (\S+)|(\S+?)\(-?\d+\) is not a registered function/op")
"""How ONNX Runtime names an operator that it does not have."""


@dataclass(frozen=True, slots=True)
class OnnxConfig:
    """How a file is used.

    Attributes:
        quantity: what its map holds.
        size: short side in pixels at which it is used; of a file of fixed shape that shape decides.
        multiple: sides are multiples of it.
        mean, std: taken from RGB in [0, 1], and what it is divided by then.
        output: name of the output that is the map.
    """

    quantity: Quantity
    size: int
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str

    def as_json(self) -> dict[str, object]:
        """Plain values for ``config.json``."""
        return {**asdict(self), "quantity": self.quantity.value}


class OnnxModel(nn.Module):
    """One file, ready to predict on the processor.

    Args:
        file: the ONNX file; weights outside of it are refused.
        config: how it is used; an empty name as ``output`` takes the only one there is.

    Raises:
        WeightsError: it cannot be read or run, or does not take a photograph and give a map.
    """

    family = "onnx"

    def __init__(self, file: Path, config: OnnxConfig) -> None:
        super().__init__()
        self.file = file
        session = _open(file)
        inputs, outputs = session.get_inputs(), {each.name: each for each in session.get_outputs()}
        if len(inputs) != 1:
            named = ", ".join(each.name for each in inputs)
            raise WeightsError(f"{file}: takes {len(inputs)} inputs ({named}); expected one photograph")
        if not config.output and len(outputs) != 1:
            raise WeightsError(f"{file}: has several outputs; say with 'output' which is the map: {', '.join(outputs)}")
        output = config.output or next(iter(outputs))
        if output not in outputs:
            raise WeightsError(f"{file}: no output '{output}'; there are: {', '.join(outputs)}")
        if inputs[0].type not in _TYPES:
            raise WeightsError(f"{file}: takes {inputs[0].type}; expected float32 or float16 RGB, channels first")
        shape = inputs[0].shape
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
            raise WeightsError(f"{file}: takes the shape {shape}; expected (batch, 3, height, width)")
        if any(isinstance(side, int) and side < 1 for side in shape):
            raise WeightsError(f"{file}: takes the shape {shape}, in which nothing has room")
        if shape[3] == 3 and not isinstance(shape[1], int):
            raise WeightsError(f"{file}: takes the shape {shape}, channels last; expected (batch, 3, height, width)")
        self.config = OnnxConfig(**{**asdict(config), "output": output})
        self._session, self._input, self._type = session, inputs[0].name, _TYPES[inputs[0].type]
        self._batch, self._height, self._width = (
            side if isinstance(side, int) else None for side in (shape[0], shape[2], shape[3])
        )

    @property
    def free(self) -> bool:
        """Whether the file takes images of any size."""
        return self._height is None or self._width is None

    @property
    def quantity(self) -> Quantity:
        """What its map holds."""
        return self.config.quantity

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """Height and width of its input: the file's own, or the aspect of the image at the short side asked for."""
        if self._height is not None and self._width is not None:
            return self._height, self._width
        short, step = input_size or self.config.size, self.config.multiple
        scale = short / min(height, width)
        tall, wide = (max(step, round(side * scale / step) * step) for side in (height, width))
        return self._height or tall, self._width or wide

    def prepare(self, rgb: NDArray[np.uint8], input_size: int | None = None) -> NDArray[np.float32]:
        """uint8 (H, W, 3) → float32 (3, h, w) as the file takes it."""
        height, width = self.network_shape(rgb.shape[0], rgb.shape[1], input_size)
        method = cv2.INTER_AREA if height * width < rgb.shape[0] * rgb.shape[1] else cv2.INTER_CUBIC
        small = cv2.resize(rgb, (width, height), interpolation=method).astype(np.float32) / 255
        mean, std = (np.asarray(values, np.float32) for values in (self.config.mean, self.config.std))
        return np.ascontiguousarray(((small - mean) / std).transpose(2, 0, 1))

    def forward(self, batch: Tensor) -> Tensor:
        """(B, 3, h, w) → values of the quantity, float32 (B, h, w).

        Raises:
            WeightsError: the file cannot take that shape, or gives no map for it.
        """
        arrays = batch.cpu().numpy().astype(self._type)
        step = self._batch or len(arrays)
        parts = [self._run(arrays[first : first + step]) for first in range(0, len(arrays), step)]
        return torch.from_numpy(np.concatenate(parts))

    def _run(self, batch: NDArray[np.floating]) -> NDArray[np.float32]:
        try:
            (values,) = self._session.run([self.config.output], {self._input: batch})
        except Exception as error:
            # ONNX Runtime raises classes of its own for every status, none of them public.
            raise WeightsError(f"{self.file}: cannot be run on {batch.shape}: {reason(error)}") from None
        maps = np.asarray(values, np.float32)
        if maps.ndim == 4:
            # One channel, wherever it stands.
            axis = next((axis for axis in (1, 3) if maps.shape[axis] == 1), None)
            maps = maps if axis is None else maps.squeeze(axis)
        if maps.ndim != 3 or len(maps) != len(batch) or maps.size == 0:
            raise WeightsError(
                f"{self.file}: the output '{self.config.output}' has the shape {maps.shape}, not one map for each of "
                f"{len(batch)} photographs; name another with 'output'"
            )
        return maps

    def infer_maps(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[Maps[NDArray[np.float32]]]:
        """Maps of uint8 images (H, W, 3) at their own resolution."""
        found = []
        for rgb in images:
            values = self(torch.from_numpy(self.prepare(rgb, input_size))[None])[0]
            found.append(Maps(self.quantity, resized(values, rgb.shape[:2]).numpy()))
        return found

    def infer_images(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[NDArray[np.float32]]:
        """The values alone."""
        return [maps.values for maps in self.infer_maps(images, input_size)]

    def infer_image(self, rgb: NDArray[np.uint8], input_size: int | None = None) -> NDArray[np.float32]:
        """Values of the map of one uint8 image (H, W, 3), at its resolution."""
        return self.infer_images([rgb], input_size)[0]


def resized(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One map (h, w) at another resolution, bilinear; pixels are areas, so corners are not aligned."""
    return F.interpolate(values[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]


def _messages(message: Message) -> Iterator[Message]:
    """All that a protocol buffer holds: tensors stand in graphs, in their branches, in constants and in functions."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield each
                yield from _messages(each)


def _elsewhere(message: Message) -> bool:
    """Whether a tensor takes its values from another file, which ONNX Runtime would look for where the process runs."""
    return message.DESCRIPTOR.name == "TensorProto" and (message.data_location == 1 or len(message.external_data) > 0)


def _open(file: Path) -> InferenceSession:
    """A session of ONNX Runtime on the processor.

    Raises:
        WeightsError: the file is missing, too large, no ONNX file, keeps weights elsewhere, or needs what is not here.
    """
    try:
        require("onnx", "onnxruntime")
    except MissingExtraError as error:
        raise WeightsError(f"{file}: {error}") from None
    import onnx
    import onnxruntime

    try:
        with open_regular(file) as stream:
            data = read_bounded(stream, LARGEST, str(file))
        described = onnx.load_from_string(data)
    except Exception as error:
        # The protocol buffer's own errors have no common class.
        text = reason(error) if isinstance(error, OSError | ValueError) else "it is not a whole ONNX file"
        raise WeightsError(f"{file}: {text}") from None
    outside = next((each for each in _messages(described) if _elsewhere(each)), None)
    if outside is not None:
        raise WeightsError(f"{file}: keeps weights in other files ({outside.name} …); save it as one file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = limits.cores()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        operator = _UNKNOWN.search(str(error))
        if operator is not None:
            raise WeightsError(
                f"{file}: needs the operator '{operator[1] or operator[2]}', which this ONNX Runtime "
                f"({onnxruntime.__version__}) has not; export the network without it, or with standard operators alone"
            ) from None
        raise WeightsError(f"{file}: ONNX Runtime cannot load it: {reason(error)}") from None
