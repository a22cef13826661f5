"""Depth files: what is damaged, oversized or of another kind is refused by name before anything is allocated."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dav2.data.frame import FrameError
from dav2.data.images import encode_png
from dav2.data.raw.sources import formats
from dav2.scenes.layouts.files import write_exr

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4) + 0.25


def npy(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def hdf5(array: np.ndarray, name: str = "dataset") -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(name, data=array)
    return buffer.getvalue()


@pytest.mark.parametrize(("scale", "order"), [("-1.0", "<f4"), ("1.0", ">f4"), ("-0.003922", "<f4")])
def test_pfm_rows_lie_bottom_up_and_the_scale_only_tells_the_byte_order(scale: str, order: str) -> None:
    data = f"Pf\n4 3\n{scale}\n".encode() + VALUES[::-1].astype(order).tobytes()
    np.testing.assert_array_equal(formats.read_pfm(data, "a.pfm"), VALUES)


def test_pfm_pixels_may_begin_with_bytes_that_look_like_space() -> None:
    spaces = np.frombuffer(b"\n\n\n\n    \t\t\t\t", "<f4").reshape(1, 3)
    data = b"Pf\n3 1\n-1\n" + spaces.tobytes()
    np.testing.assert_array_equal(formats.read_pfm(data, "a.pfm"), spaces)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_keeps_shape_and_order(shape: tuple[int, ...], order: Any) -> None:
    array = np.asarray(VALUES.reshape(shape), order=order)
    np.testing.assert_array_equal(formats.read_npy(npy(array), "a.npy"), array)


def test_16_bit_png_keeps_every_bit_and_8_bit_is_refused_where_16_are_needed() -> None:
    values = np.array([[0, 1, 255], [256, 32768, 65535]], np.uint16)
    np.testing.assert_array_equal(formats.read_png16(encode_png(values), "a.png"), values)
    with pytest.raises(FrameError, match=r"a\.png: must be a single-channel 16-bit PNG, not uint8"):
        formats.read_png16(encode_png(np.zeros((2, 2), np.uint8)), "a.png")


def test_exr_takes_the_named_channel_or_the_only_one(tmp_path: Path) -> None:
    import OpenEXR

    write_exr(tmp_path / "g.exr", {"G": VALUES})
    np.testing.assert_array_equal(formats.read_exr((tmp_path / "g.exr").read_bytes(), "g.exr", "G"), VALUES)
    np.testing.assert_array_equal(formats.read_exr((tmp_path / "g.exr").read_bytes(), "g.exr", "Y"), VALUES)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    two = {name: OpenEXR.Channel(name, VALUES) for name in ("R", "B")}
    with OpenEXR.File(header, two) as file:
        file.write(str(tmp_path / "two.exr"))
    with pytest.raises(FrameError, match=r"two\.exr: no channel 'G' among B, R"):
        formats.read_exr((tmp_path / "two.exr").read_bytes(), "two.exr", "G")


def bomb_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bomb_hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("dataset", shape=(100_000, 100_000), chunks=(100, 100), dtype="f2")
    return buffer.getvalue()


def bomb_npy() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    return buffer.getvalue() + b"\0" * 64


READERS: list[tuple[Callable[[bytes, str], Any], Callable[[], bytes]]] = [
    (formats.read_png16, lambda: encode_png(np.arange(4096, dtype=np.uint16).reshape(64, 64))),
    (formats.read_npy, lambda: npy(VALUES)),
    (formats.read_pfm, lambda: b"Pf\n4 3\n-1\n" + VALUES.tobytes()),
    (formats.read_dpt, lambda: struct.pack("<fii", 202021.25, 4, 3) + VALUES.tobytes()),
    (formats.read_hdf5, lambda: hdf5(VALUES)),
]


@pytest.mark.parametrize(("read", "make"), READERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_a_file_cut_short_is_refused_and_named(
    read: Callable[[bytes, str], Any], make: Callable[[], bytes], share: float
) -> None:
    data = make()
    with pytest.raises(FrameError, match=r"scene/depth\.bin"):
        read(data[: int(share * len(data))], "scene/depth.bin")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_an_exr_cut_short_is_refused_and_named(tmp_path: Path, share: float) -> None:
    write_exr(tmp_path / "a.exr", {"G": np.random.default_rng(0).random((64, 64)).astype(np.float32)})
    data = (tmp_path / "a.exr").read_bytes()
    with pytest.raises(FrameError, match=r"home/d_1\.exr"):
        formats.read_exr(data[: int(share * len(data))], "home/d_1.exr", "G")


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (formats.read_png16, bomb_png()),
        (formats.read_hdf5, bomb_hdf5()),
        (formats.read_npy, bomb_npy()),
        (formats.read_pfm, b"Pf\n1000000 1000000\n-1\n" + b"\0" * 64),
        (formats.read_dpt, struct.pack("<fii", 202021.25, 10**6, 10**6) + b"\0" * 64),
        (formats.read_dpt, struct.pack("<fii", 202021.25, -4, -3) + VALUES.tobytes()),
        (formats.read_npy, npy(np.array([{}], dtype=object), allow_pickle=True)),
        (formats.read_hdf5, hdf5(VALUES, "other")),
        (formats.read_pfm, b"PF\n4 3\n-1\n" + b"\0" * 144),
    ],
    ids=["png", "hdf5", "npy", "pfm", "dpt", "negative", "pickle", "other name", "colour pfm"],
)
def test_a_header_that_promises_too_much_or_another_kind_is_refused(
    read: Callable[[bytes, str], Any], data: bytes
) -> None:
    with pytest.raises(FrameError, match=r"depth\.bin"):
        read(data, "depth.bin")


def test_random_damage_never_surfaces_as_another_error() -> None:
    random = np.random.default_rng(5)
    for read, make in READERS:
        whole = make()
        for _ in range(120):
            data = bytearray(whole)
            for at in random.integers(0, min(len(data), 800), int(random.integers(1, 8))):
                data[at] = int(random.integers(256))
            try:
                read(bytes(data), "depth.bin")
            except FrameError as error:
                assert "depth.bin" in str(error)
