"""A map of one number a pixel in whatever file it stands: PNG, TIFF, NPY, NPZ, EXR, PFM, HDF5, by its content.

Nothing is scaled: the numbers are those that the file holds.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from dav2.data.frame import FrameError, make_key
from dav2.data.images import MAX_PIXELS
from dav2.data.images import SUFFIXES as IMAGES
from dav2.data.raw.sources.formats import bounded, read_exr, read_hdf5, read_npy, read_pfm, read_png

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".npz", ".exr", ".pfm", ".h5", ".hdf5")
ENDINGS = ("_depth", "_disparity", "_disp", "_pred")
"""What programs, ours among them, put behind the image's name."""
_BYTES = 8
"""Most bytes of one number."""
_SLACK = 2**16
"""Bytes of a file that are no pixels."""


def image_names(name: str, endings: tuple[str, ...] = ENDINGS) -> list[tuple[str, ...]]:
    """What the image of a map may be called, by the map's name: parts of its path, cleaned as keys are.

    The map's suffix is dropped, and one of the image inside the name (``0001.jpg.npy``). A second name, without one of
    ``endings``, counts where no image bears the first.
    """
    stem = name[: -len(Path(name).suffix)]
    inner = Path(stem).suffix
    if inner.lower() in IMAGES:
        stem = stem[: -len(inner)]
    parts = tuple(make_key(stem).split("/"))
    ending = next((end for end in endings if parts[-1].endswith(end)), "")
    return [parts, (*parts[:-1], parts[-1].removesuffix(ending))] if ending else [parts]


def read_map(
    data: bytes,
    name: str,
    *,
    dataset: str | None = None,
    channel: str = "Z",
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.generic]:
    """The numbers of a map, (H, W), in the type they are stored in.

    Args:
        dataset: of an HDF5 or NPZ file with several arrays: which one is the map.
        channel: of an EXR file with several channels: which one is the map.
        max_pixels: larger maps are refused before they are decoded.

    Raises:
        FrameError: it is of no known kind, damaged, too large, or holds something else than one number a pixel.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        array: NDArray[np.generic] = read_png(data, name, max_pixels=max_pixels)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        array = _tiff(data, name, max_pixels)
    elif data[:6] == b"\x93NUMPY":
        array = read_npy(data, name)
    elif data[:4] == b"PK\3\4":
        array = _npz(data, name, dataset, max_pixels)
    elif data[:4] == b"\x76\x2f\x31\x01":
        array = read_exr(data, name, channel, max_pixels=max_pixels)
    elif data[:2] in (b"Pf", b"PF"):
        array = read_pfm(data, name)
    elif data[:8] == b"\x89HDF\r\n\x1a\n":
        array = read_hdf5(data, name, dataset or _only_dataset(data, name), max_pixels=max_pixels)
    else:
        raise FrameError(f"{name}: no map that can be read; there are: {', '.join(SUFFIXES)}")
    return _one_number_a_pixel(array, name, max_pixels)


def _one_number_a_pixel(array: NDArray[np.generic], name: str, max_pixels: int) -> NDArray[np.generic]:
    shape = array.shape
    if array.ndim == 3 and 1 in (shape[0], shape[2]):
        array = array[0] if shape[0] == 1 else array[..., 0]
    elif array.ndim == 3 and shape[2] == 3 and array.dtype == np.uint8:
        if not ((array[..., 0] == array[..., 1]) & (array[..., 1] == array[..., 2])).all():
            raise FrameError(f"{name}: is a picture in colours; a map has one number a pixel")
        array = array[..., 0]
    if array.ndim != 2:
        raise FrameError(f"{name}: has the shape {shape}; a map has one number a pixel, (height, width)")
    bounded(array.size, max_pixels, name)
    return array


def _tiff(data: bytes, name: str, max_pixels: int) -> NDArray[np.generic]:
    """The first picture of a TIFF file: 8, 16 or 32 bits, whole numbers or floating point."""
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data), name)
        bounded(image.width * image.height, max_pixels, name)
        image.load()
        array = np.asarray(image)
    except FrameError:
        raise
    except Exception as error:
        raise FrameError(f"{name}: damaged TIFF, or of a kind that cannot be read: {error}") from error
    return array.astype(np.uint16) if image.mode.startswith("I;16") else array


def _npz(data: bytes, name: str, dataset: str | None, max_pixels: int) -> NDArray[np.generic]:
    """One array of an NPZ file; which one must be said where there are several."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = dataset or (next(iter(there)) if len(there) == 1 else "")
            if chosen not in there:
                raise FrameError(f"{name}: which array is the map? say 'dataset'; there are: {', '.join(there)}")
            if there[chosen].file_size > _BYTES * max_pixels + _SLACK:
                raise FrameError(f"{name}: '{chosen}' is larger than {max_pixels} pixels can be")
            return read_npy(archive.read(there[chosen]), f"{name}!{chosen}")
    except FrameError:
        raise
    except Exception as error:
        raise FrameError(f"{name}: damaged NPZ: {error}") from error


def _only_dataset(data: bytes, name: str) -> str:
    """Name of the only array at the top of an HDF5 file."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            there = list(file)
    except Exception as error:
        raise FrameError(f"{name}: damaged HDF5: {error}") from error
    if len(there) != 1:
        listed = ", ".join(there[:8]) or "none"
        raise FrameError(f"{name}: which array is the map? say 'dataset'; there are: {listed}")
    return there[0]
