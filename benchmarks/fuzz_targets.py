"""Sound files of the kinds that readers take, and what is done with each: what :mod:`benchmarks.fuzz` damages."""

from __future__ import annotations

import io
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import OpenEXR
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from dav2.data.raw.sources import open_source
from dav2.data.raw.sources.formats import read_exr
from dav2.data.raw.sources.ibims import MASKS
from dav2.data.raw.sources.maps import read_map
from dav2.families.onnx.model import OnnxConfig, OnnxModel
from dav2.families.weights import read_safetensors
from dav2.maps import Quantity

Put = Callable[[str, bytes], Path]
"""Writes a file of that name below the folder of the trial."""
DEPTH = np.linspace(1, 9, 24 * 40, dtype=np.float32).reshape(24, 40)


def picture() -> bytes:
    """A small JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def exr_files(folder: Path) -> list[bytes]:
    """One for each way of packing."""
    found = []
    for packing in (OpenEXR.ZIP_COMPRESSION, OpenEXR.PIZ_COMPRESSION, OpenEXR.RLE_COMPRESSION, OpenEXR.NO_COMPRESSION):
        header = {"compression": packing, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"Z": DEPTH}) as file:
            file.write(str(folder / "made.exr"))
        found.append((folder / "made.exr").read_bytes())
    return found


def map_files(folder: Path) -> list[bytes]:
    """A map of every kind that tells itself by its content."""
    npz, hdf, tiff, whole = (io.BytesIO() for _ in range(4))
    np.savez_compressed(npz, depth=DEPTH)
    with h5py.File(hdf, "w") as file:
        file.create_dataset("depth", data=DEPTH, chunks=(8, 8), compression="gzip")
    Image.fromarray(DEPTH).save(tiff, "TIFF")
    Image.fromarray((DEPTH * 1000).astype(np.uint16)).save(whole, "TIFF", compression="tiff_lzw")
    pfm = b"Pf\n40 24\n-1.0\n" + DEPTH.tobytes()
    return [pfm, *(each.getvalue() for each in (npz, hdf, tiff, whole)), exr_files(folder)[0]]


def mat_files() -> list[bytes]:
    """What iBims-1 holds of a frame, plain and packed."""
    data = {"rgb": np.zeros((24, 40, 3), np.uint8), "depth": DEPTH.astype(float), "calib": np.eye(3)}
    data |= {name: np.ones((24, 40), np.uint8) for name in MASKS}
    found = []
    for packed in (False, True):
        buffer = io.BytesIO()
        savemat(buffer, {"data": {**data, "edges": np.zeros((24, 40), np.uint8)}}, do_compression=packed)
        found.append(buffer.getvalue())
    return found


def lmdb_file(folder: Path) -> bytes:
    """An LMDB with three pictures."""
    with (
        lmdb.open(str(folder / "made_lmdb"), map_size=1 << 20) as environment,
        environment.begin(write=True) as writing,
    ):
        for key in (b"a", b"b", b"c"):
            writing.put(key, picture())
    return (folder / "made_lmdb/data.mdb").read_bytes()


def onnx_file(folder: Path) -> bytes:
    """A network of one layer that takes a photograph and gives a map."""
    inputs = torch.zeros(1, 3, 28, 28)
    torch.onnx.export(nn.Conv2d(3, 1, 3, padding=1), (inputs,), str(folder / "made.onnx"), dynamo=False)
    return (folder / "made.onnx").read_bytes()


TABLE = b"""image,depth,fx,fy,cx,cy,split,scene
a.jpg,a.npy,30,30,20,12,train,kitchen
b.jpg,b.npy,,,,,val,
"c.jpg",c.npy,31.5,31,2e1,12,train,hall
"""


def read_source(reader: str, root: Path, options: dict[str, Any] | None = None) -> None:
    """List a data set and load what it lists."""
    source = open_source(reader, root, "fuzzed", options or {})
    for item in source.index()[:3]:
        source.read(item)


def read_onnx(file: Path) -> None:
    """Open a network and predict once."""
    config = OnnxConfig(Quantity.DISPARITY, 28, 14, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "")
    OnnxModel(file, config).infer_image(np.zeros((28, 28, 3), np.uint8))


def pairs(put: Put, table: bytes) -> None:
    """A folder of pairs listed in a table."""
    buffer = io.BytesIO()
    np.save(buffer, DEPTH)
    for name in "abc":
        put(f"pairs/{name}.jpg", picture())
        put(f"pairs/{name}.npy", buffer.getvalue())
    read_source("pairs", put("pairs/list.csv", table).parent, {"table": "list.csv"})


def apart(action: Callable[[], object]) -> None:
    """Do something in a process of its own: damage may end a C library's, and must not end this one.

    Raises:
        Exception: what the action raised, or that its process was ended by a signal.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(0)
        said = b""
        try:
            action()
        except BaseException as error:
            said = pickle.dumps((type(error), str(error)))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended:
        raise RuntimeError(f"the process ended with {ended}")
    if said:
        kind, text = pickle.loads(said)
        raise kind(text)


def actions(put: Put) -> dict[str, Callable[[bytes], object]]:
    """Family → what is done with a file of it."""
    return {
        "exr": lambda data: read_exr(data, "x.exr", "Z", max_pixels=10**6),
        "maps": lambda data: read_map(data, "x", max_pixels=10**6),
        "pairs": lambda data: pairs(put, data),
        "mat": lambda data: read_source("ibims", put("ibims/ibims1_core_mat/a.mat", data).parents[1]),
        "lmdb": lambda data: apart(lambda: read_source("lsun", put("lsun/x_train_lmdb/data.mdb", data).parents[1])),
        "safetensors": lambda data: read_safetensors(put("any.safetensors", data)),
        "onnx": lambda data: apart(lambda: read_onnx(put("any.onnx", data))),
    }


def sounds(folder: Path, weights: bytes) -> dict[str, list[bytes]]:
    """Family → sound files of it."""
    return {
        "exr": exr_files(folder),
        "maps": map_files(folder),
        "pairs": [TABLE, TABLE.replace(b",", b"\t"), TABLE.replace(b"\n", b"\r\n")],
        "mat": mat_files(),
        "lmdb": [lmdb_file(folder)],
        "safetensors": [weights],
        "onnx": [onnx_file(folder)],
    }
