"""Depth files in the encodings that data sets use: bytes → array, or a FrameError that names the file.

Every decoder checks the size that the header promises against the bytes that are there before it allocates anything.
"""

from __future__ import annotations

import io
import math
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from dav2.data.frame import FrameError
from dav2.data.images import MAX_PIXELS
from dav2.data.png import without_words
from dav2.failures import reason

DPT_TAG = 202021.25
PLAIN = "biuf"
"""Kinds of NumPy types that depth, colours and masks may have: truth values, integers, floating point."""
MAX_AXES = 4
MAX_CHANNELS = 32
MAX_PACKED = 2000
"""Bytes that one stored byte may stand for; deflate reaches 1,032."""


def read_png(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """A PNG's samples as stored: uint16 (H, W), uint8 (H, W) or uint8 (H, W, C)."""
    try:
        # Texts and colours do not matter here, and long ones make Pillow refuse the file.
        image = PngImagePlugin.PngImageFile(io.BytesIO(without_words(data)), name)
        bounded(image.width * image.height, max_pixels, name)
        image.load()
        # Pillow is content without the end, where damage may have gone unnoticed.
        if b"IEND" not in data[-1024:]:
            raise ValueError("cut short before its end chunk")
    except FrameError:
        raise
    except Exception as error:
        raise FrameError(f"{name}: damaged PNG: {error}") from error
    array = np.asarray(image)
    return array.astype(np.uint16) if image.mode.startswith("I") else array


def read_png16(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint16]:
    """A single-channel 16-bit PNG as uint16 (H, W)."""
    array = read_png(data, name, max_pixels=max_pixels)
    if array.dtype != np.uint16 or array.ndim != 2:
        raise FrameError(f"{name}: must be a single-channel 16-bit PNG, not {array.dtype} {array.shape}")
    return array


def read_npy(data: bytes, name: str) -> NDArray[Any]:
    """A ``.npy`` array of plain numbers; pickled objects are refused."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:
        raise FrameError(f"{name}: not a .npy file: {reason(error)}") from error
    if dtype.hasobject:
        raise FrameError(f"{name}: holds pickled objects, which are never loaded")
    if dtype.kind not in PLAIN or not 1 <= len(shape) <= MAX_AXES or min(shape) < 1:
        raise FrameError(f"{name}: must hold plain numbers on 1 to {MAX_AXES} axes, not {dtype} {shape}")
    body = data[stream.tell() :]
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise FrameError(f"{name}: {len(body)} bytes where {shape} {dtype} needs {math.prod(shape) * dtype.itemsize}")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def read_pfm(data: bytes, name: str) -> NDArray[np.float32]:
    """A portable float map as float32 (H, W), top row first.

    Header ``Pf``, width and height, then a scale whose sign tells the byte order (negative: little endian); rows lie
    bottom-up. The scale's size is a unit of radiance and not applied to depth.
    """
    parts = data[:256].split(maxsplit=4)
    try:
        if parts[0] != b"Pf":
            raise ValueError("does not begin with 'Pf'")
        width, height, scale = int(parts[1]), int(parts[2]), float(parts[3])
        start = data.index(parts[3], data.index(parts[2], data.index(parts[1], 2) + len(parts[1]))) + len(parts[3])
    except (ValueError, IndexError) as error:
        raise FrameError(f"{name}: not a one-channel PFM file: {error}") from error
    body = data[start + 1 :]
    if width <= 0 or height <= 0 or scale == 0 or len(body) != 4 * width * height:
        raise FrameError(f"{name}: {len(body)} bytes of pixels, but the header says {width} × {height}")
    values = np.frombuffer(body, "<f4" if scale < 0 else ">f4").reshape(height, width)
    return values[::-1].astype(np.float32)


def read_dpt(data: bytes, name: str) -> NDArray[np.float32]:
    """Sintel's depth file as float32 (H, W): tag 202021.25, int32 width and height, rows; little endian."""
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != DPT_TAG:
        raise FrameError(f"{name}: not a .dpt file")
    width, height = struct.unpack("<ii", data[4:12])
    return read_raw_float32(data[12:], height, width, name)


def read_raw_float32(data: bytes, height: int, width: int, name: str) -> NDArray[np.float32]:
    """Headerless little-endian float32 rows."""
    if height <= 0 or width <= 0 or len(data) != 4 * height * width:
        raise FrameError(f"{name}: {len(data)} bytes where {width} × {height} float32 need {4 * height * width}")
    return np.frombuffer(data, "<f4").reshape(height, width).astype(np.float32)


def read_hdf5(data: bytes, name: str, dataset: str = "dataset", *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """One array of an HDF5 file, of at most three values a pixel."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            stored = plain_array(file, dataset, name, max_pixels)
            return np.asarray(stored[()])
    except (FrameError, MemoryError):
        raise
    except Exception as error:
        raise FrameError(f"{name}: no readable HDF5 array '{dataset}': {error}") from error


def plain_array(file: Any, dataset: str, name: str, max_pixels: int, *, rows: bool = False) -> Any:
    """A dataset of an open HDF5 file that holds its own plain numbers and no more of them than it has bytes for.

    HDF5 can take values from any other file of the machine (links, external storage, virtual datasets), and promise
    arrays and types of any size in a few bytes: such files are refused before anything is read or allocated.

    Args:
        rows: the first axis counts pictures, of which one at a time is read.

    Raises:
        FrameError: it is of another kind, or too large.
    """
    import h5py

    link = file.get(dataset, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise FrameError(f"{name}: '{dataset}' is a link into another file ({link.filename})")
    stored = file[dataset]
    if not isinstance(stored, h5py.Dataset) or stored.file.id != file.id:
        raise FrameError(f"{name}: '{dataset}' is no array of this file")
    if stored.external or stored.is_virtual:
        raise FrameError(f"{name}: '{dataset}' takes its values from other files, which are never read")
    if stored.dtype.kind not in PLAIN or stored.dtype.subdtype is not None or stored.dtype.itemsize > 8:
        raise FrameError(f"{name}: '{dataset}' must hold plain numbers, not {stored.dtype}")
    shape = stored.shape if not rows else stored.shape[1:]
    if not shape or len(stored.shape) > MAX_AXES:
        raise FrameError(f"{name}: '{dataset}' must have 1 to {MAX_AXES} axes, not {stored.shape}")
    bounded(math.ceil(math.prod(shape) / 3), max_pixels, name)
    if stored.chunks:
        bounded(math.ceil(math.prod(stored.chunks) / 3), max_pixels, name)
    if stored.nbytes > MAX_PACKED * max(stored.id.get_storage_size(), 1):
        raise FrameError(f"{name}: '{dataset}' promises {stored.nbytes} bytes, but hardly any are stored")
    return stored


def read_exr(data: bytes, name: str, channel: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """One channel of an OpenEXR file as float32 (H, W); a file with a single channel may call it anything."""
    channels = read_exr_channels(data, name, max_pixels=max_pixels)
    if channel not in channels and len(channels) != 1:
        raise FrameError(f"{name}: no channel '{channel}' among {', '.join(sorted(channels))}")
    return channels[channel if channel in channels else next(iter(channels))]


def read_exr_colours(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """The channels R, G, B of an OpenEXR file as float32 (H, W, 3)."""
    channels = read_exr_channels(data, name, max_pixels=max_pixels)
    if not channels.keys() >= set("RGB"):
        raise FrameError(f"{name}: no channels R, G, B, but {', '.join(sorted(channels))}")
    return np.stack([channels[each] for each in "RGB"], axis=-1)


def read_exr_channels(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> dict[str, NDArray[np.float32]]:
    """All channels of an OpenEXR file, each float32 (H, W), by name."""
    import OpenEXR

    # The library reads only files that have a name.
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:
        file.write(data)
        file.flush()
        try:
            outline = OpenEXR.File(file.name, header_only=True)
            if len(outline.parts) != 1:
                raise FrameError(f"{name}: holds {len(outline.parts)} pictures; one is expected")
            header = outline.header()
            low, high = header["dataWindow"]
            bounded(int((high[0] - low[0] + 1) * (high[1] - low[1] + 1)), max_pixels, name)
            if len(header.get("channels", ())) > MAX_CHANNELS:
                raise FrameError(f"{name}: {len(header['channels'])} channels, more than {MAX_CHANNELS}")
            channels = OpenEXR.File(file.name, separate_channels=True).channels()
        except (FrameError, MemoryError):
            raise
        except Exception as error:
            raise FrameError(f"{name}: damaged EXR: {str(error).replace(file.name, Path(name).name)}") from error
    return {each: np.asarray(channels[each].pixels).astype(np.float32) for each in channels}


def positive(values: Sequence[str | float]) -> list[float]:
    """Numbers of a camera: finite, the focal lengths (the first two) above 0.

    Raises:
        ValueError: they are not.
    """
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)) or min(numbers[:2]) <= 0:
        raise ValueError(f"no camera: {' '.join(map(str, values))}")
    return numbers


def bounded(pixels: int, max_pixels: int, name: str) -> None:
    """Refuse a picture by its size, before memory is asked for."""
    if not 0 < pixels <= max_pixels:
        raise FrameError(f"{name}: {pixels} pixels in the header, where 1 to {max_pixels} are allowed")
