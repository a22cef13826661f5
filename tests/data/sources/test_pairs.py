"""Depth of one's own: every file kind and meaning against numbers known beforehand, and what is wrong named."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import OpenEXR
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from dav2.data.frame import FrameError, Intrinsics
from dav2.data.images import encode_jpeg
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.sources.cameras import read_camera
from dav2.data.raw.sources.maps import read_map
from dav2.data.store.ingest import ingest
from dav2.params import IngestParams, SourceParams

HEIGHT, WIDTH = 48, 64
METRES = np.linspace(0.5, 9.5, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
PATTERNS = {"image": "{scene}/rgb/{frame}.jpg", "depth": "{scene}/depth/{frame}.png"}


def photograph(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    return encode_jpeg(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8), 90)


def png16(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def tiff(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def hdf5(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def pfm(array: NDArray[Any]) -> bytes:
    return f"Pf\n{array.shape[1]} {array.shape[0]}\n-1\n".encode() + array[::-1].astype("<f4").tobytes()


def exr(tmp_path: Path, **channels: NDArray[Any]) -> bytes:
    path = tmp_path / "made.exr"
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {name: values.astype(np.float32) for name, values in channels.items()}) as file:
        file.write(str(path))
    return path.read_bytes()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def opened(root: Path, **options: Any) -> Any:
    return open_source("pairs", root, "mine", options)


def only(root: Path, **options: Any) -> Any:
    source = opened(root, **options)
    (item,) = source.index()
    return source.read(item)


KINDS: dict[str, tuple[Callable[[Path], bytes], dict[str, Any], float]] = {
    "png16 in millimetres": (lambda p: png16(METRES * 1000), {"unit": "mm"}, 1.1e-3),
    "png16 / 256": (lambda p: png16(METRES * 256), {"unit": 1 / 256}, 4e-3),
    "tiff uint8 in tenths": (
        lambda p: tiff((METRES * 10).astype(np.uint8)),
        {"unit": 0.1},
        0.1,
    ),
    "tiff uint16": (lambda p: tiff((METRES * 1000).astype(np.uint16)), {"unit": "mm"}, 1.1e-3),
    "tiff int32": (lambda p: tiff((METRES * 10_000).astype(np.int32)), {"unit": 1e-4}, 1.1e-4),
    "tiff float32": (lambda p: tiff(METRES.astype(np.float32)), {}, 1e-6),
    "npy float64": (lambda p: npy(METRES), {}, 1e-6),
    "npy with a channel": (lambda p: npy(METRES[..., None]), {}, 1e-6),
    "npy float16": (lambda p: npy(METRES.astype(np.float16)), {}, 5e-3),
    "npz": (lambda p: npz(depth=METRES), {}, 1e-6),
    "npz of several": (lambda p: npz(depth=METRES, more=METRES * 2), {"dataset": "depth"}, 1e-6),
    "hdf5": (lambda p: hdf5(anything=METRES), {}, 1e-6),
    "hdf5 of several": (lambda p: hdf5(depth=METRES, more=METRES * 2), {"dataset": "depth"}, 1e-6),
    "pfm": (lambda p: pfm(METRES), {}, 1e-6),
    "exr": (lambda p: exr(p, Z=METRES), {}, 1e-6),
    "exr of several": (lambda p: exr(p, Y=METRES, A=METRES * 2), {"channel": "Y"}, 1e-6),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_depth_file_gives_the_metres_that_were_written(tmp_path: Path, kind: str) -> None:
    make, options, tolerance = KINDS[kind]
    # By what stands in it, not by its name.
    root = write(tmp_path / "set", {"a/rgb/0.jpg": photograph(), "a/depth/0.png": make(tmp_path)})
    frame = only(root, **PATTERNS, **options)
    assert frame.key == "mine/a/0"
    assert frame.depth.dtype == np.float32
    np.testing.assert_allclose(frame.depth, METRES, atol=tolerance)


def test_distance_along_the_ray_becomes_depth_along_the_axis(tmp_path: Path) -> None:
    fx, fy, cx, cy = 50.0, 55.0, 30.0, 25.0
    expected = np.empty((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            ray = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
            expected[row, column] = METRES[row, column] / np.linalg.norm(ray)
    root = write(tmp_path, {"a/rgb/0.jpg": photograph(), "a/depth/0.png": npy(METRES)})
    frame = only(root, **PATTERNS, kind="distance", camera=[fx, fy, cx, cy])
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    assert frame.intrinsics == Intrinsics(fx, fy, cx, cy)


def test_disparity_becomes_depth_by_baseline_and_focal_length(tmp_path: Path) -> None:
    disparity = 0.54 * 721.0 / METRES
    files = {"a/rgb/0.jpg": photograph(), "a/depth/0.png": png16(disparity * 16)}
    files["a/camera.txt"] = b"721 0 32\n0 721 24\n0 0 1\n"
    root = write(tmp_path, files)
    for options in ({"focal": 721.0}, {"camera": "{scene}/camera.txt"}):
        frame = only(root, **PATTERNS, kind="disparity", unit=1 / 16, baseline=0.54, **options)
        np.testing.assert_allclose(frame.depth, METRES, rtol=0.02)


def test_what_is_not_known_and_what_is_sky(tmp_path: Path) -> None:
    stored = (METRES * 1000).astype(np.uint16)
    stored[0, 0], stored[0, 1], stored[0, 2] = 0, 65535, 65000
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[1, 1] = 0
    files = {"a/rgb/0.jpg": photograph(), "a/depth/0.png": png16(stored)}
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    files["a/mask/0.png"] = buffer.getvalue()
    options = {
        "unit": "mm",
        "invalid": [0, 65535],
        "sky": 65000,
        "range": [0.6, 9.0],
        "mask": "{scene}/mask/{frame}.png",
    }
    depth = only(write(tmp_path, files), **PATTERNS, **options).depth
    assert np.isnan(depth[[0, 0, 1], [0, 1, 1]]).all()
    assert np.isposinf(depth[0, 2])
    assert np.isnan(depth[METRES > 9.001]).all()
    assert np.isnan(depth[2:][(METRES < 0.599)[2:]]).all()
    inside = (METRES > 0.61) & (METRES < 8.99)
    inside[:2] = False
    np.testing.assert_allclose(depth[inside], METRES[inside], atol=1.1e-3)


def test_numbers_that_cannot_be_depth_are_unknown(tmp_path: Path) -> None:
    stored = METRES.copy()
    stored[0, :4] = [np.nan, np.inf, -1.0, -np.inf]
    depth = only(write(tmp_path, {"a/rgb/0.jpg": photograph(), "a/depth/0.png": npy(stored)}), **PATTERNS).depth
    assert np.isnan(depth[0, :4]).all()
    assert np.isfinite(depth[0, 4:]).all()


TABLES = {
    "comma": "image,depth,scene,split\nx/0.jpg,y/0.npy,one,train\nx/1.jpg,y/1.npy,two,val\n",
    "bom and semicolons": "\ufeffimage;depth;scene;split\r\nx/0.jpg;y/0.npy;one;train\r\nx/1.jpg;y/1.npy;two;val\r\n",
    "tabs and capitals": "Image\tDepth\tScene\tSplit\nx/0.jpg\ty/0.npy\tone\ttrain\nx/1.jpg\ty/1.npy\ttwo\tval\n",
    "windows": 'rgb,depth,scene,split\nC:\\set\\x\\0.jpg,C:\\set\\y\\0.npy,one,train\nx\\1.jpg,"y\\1.npy",two,val\n',
    "elsewhere": "image,depth,scene,split\n/home/me/x/0.jpg,/home/me/y/0.npy,one,train\nx/1.jpg,y/1.npy,two,val\n",
}


@pytest.mark.parametrize("kind", [*TABLES, "parquet"])
def test_tables_of_many_hands_are_read(tmp_path: Path, kind: str) -> None:
    files = {f"x/{n}.jpg": photograph(n) for n in range(2)} | {f"y/{n}.npy": npy(METRES) for n in range(2)}
    name = "frames.csv"
    if kind == "parquet":
        name = "frames.parquet"
        rows = {"image": ["x/0.jpg", "x/1.jpg"], "depth": ["y/0.npy", "y/1.npy"], "scene": ["one", "two"]}
        buffer = io.BytesIO()
        pq.write_table(pa.table({**rows, "split": ["train", "val"], "fx": [50.0, None], "fy": [50.0, None]}), buffer)
        files[name] = buffer.getvalue()
    else:
        files[name] = TABLES[kind].encode("utf-16" if kind.startswith("tabs") else "utf-8")
    source = opened(write(tmp_path, files), table=name)
    items = source.index()
    assert [(item.key, item.scene, item.split) for item in items] == [
        ("mine/one/0", "one", "train"),
        ("mine/two/1", "two", "val"),
    ]
    assert all(source.read(item).depth is not None for item in items)
    assert "files: 5 found = 4 used + 1 left out" in " ".join(source.notes())


def test_rows_that_cannot_be_frames_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    files = {f"x/{n}.jpg": photograph(n) for n in range(3)} | {f"y/{n}.npy": npy(METRES) for n in range(3)}
    table = "image,depth,fx,fy,cx,cy\nx/0.jpg,y/0.npy,50,50,32,24\nx/1.jpg,y/gone.npy,,,,\nx/0.jpg,y/2.npy,,,,\n"
    table += "../../etc/passwd,y/2.npy,,,,\nx/2.jpg,y/2.npy,wide,50,32,24\n"
    source = opened(write(tmp_path, {**files, "frames.csv": table.encode()}), table="frames.csv")
    good, *bad = sorted(source.index(), key=lambda item: "refused" in item.extra)
    assert source.read(good).intrinsics == Intrinsics(50, 50, 32, 24)
    reasons = {item.paths[0]: item.extra["refused"] for item in bad}
    assert reasons["frames.csv, line 3"].startswith("y/gone.npy is not there")
    assert reasons["frames.csv, line 4"] == "x/0.jpg belongs to frames.csv, line 2 already"
    assert reasons["frames.csv, line 5"].startswith("../../etc/passwd is not there")
    assert reasons["frames.csv, line 6"].startswith("fx, fy, cx, cy are no numbers: wide")


def test_halves_and_frames_that_are_not_told_apart_are_named(tmp_path: Path) -> None:
    files = {f"a/rgb/{n}.jpg": photograph(n) for n in range(3)} | {"a/depth/0.png": png16(METRES), "a/depth/9.png": b""}
    files |= {"b/rgb/1.jpg": photograph(7), "b/depth/1.png": png16(METRES), "notes.txt": b"mine"}
    source = opened(write(tmp_path, files), **PATTERNS)
    refused = {item.paths[0]: item.extra["refused"] for item in source.index() if "refused" in item.extra}
    assert refused == {
        "a/depth/9.png": "half a frame: its image is not there",
        "a/rgb/1.jpg": "half a frame: its depth is not there",
        "a/rgb/2.jpg": "half a frame: its depth is not there",
    }
    assert "files: 8 found = 4 used + 1 left out (TXT 1) + 3 failed" in source.notes()
    # Without the scene in both patterns, nothing tells a's frame 1 from b's.
    source = opened(tmp_path, image="*/rgb/{frame}.jpg", depth="*/depth/{frame}.png")
    refused = {item.paths[0]: item.extra["refused"] for item in source.index() if "refused" in item.extra}
    assert refused["a/rgb/1.jpg"].startswith("2 images for one depth (a/rgb/1.jpg, b/rgb/1.jpg)")
    assert refused["b/depth/1.png"] == refused["a/rgb/1.jpg"]


def test_a_wide_image_pattern_does_not_take_the_depth_for_images(tmp_path: Path) -> None:
    files = {"0.png": photograph(), "0_depth.png": png16(METRES * 1000)}
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(buffer, "PNG")
    files["0.png"] = buffer.getvalue()
    source = opened(write(tmp_path, files), image="{frame}.png", depth="{frame}_depth.png", unit="mm")
    (item,) = source.index()
    assert item.paths == ("0.png", "0_depth.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "say 'image' and 'depth' .patterns., or 'table'"),
        ({"image": "{frame}.jpg"}, "say 'image' and 'depth'"),
        ({**PATTERNS, "table": "a.csv"}, "say 'image' and 'depth' .patterns., or 'table', and not both"),
        ({**PATTERNS, "unit": 0}, "unit must be above 0"),
        ({**PATTERNS, "unit": "inch"}, "unit"),
        ({**PATTERNS, "kind": "disparity"}, "disparity needs 'baseline' in metres"),
        ({**PATTERNS, "kind": "distance"}, "distance along the ray needs 'camera'"),
        ({**PATTERNS, "range": [3, 1]}, "range must be .least, greatest."),
        ({"image": "{scene}/a.jpg", "depth": "{frame}.png"}, "share no named part"),
        ({"image": "../{frame}.jpg", "depth": "{frame}.png"}, "must be a path below the data set"),
        ({"image": "{frame.jpg", "depth": "{frame}.png"}, "has a brace without its other"),
        ({"table": "gone.csv"}, "no table 'gone.csv' there"),
        ({"table": "bad.csv"}, "the table bad.csv has no column 'depth'; there are: image, distance"),
        ({"table": "empty.csv"}, "the table empty.csv has no rows"),
        ({**PATTERNS, "invalid_value": 3}, "allowed: rules, max_pixels, normals_from_depth, list, image, depth"),
    ],
)
def test_options_that_cannot_work_are_named(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    root = write(
        tmp_path, {"a/rgb/0.jpg": photograph(), "bad.csv": b"image,distance\na,b\n", "empty.csv": b"image,depth\n"}
    )
    with pytest.raises(SourceError, match=said):
        opened(root, **options).index()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (photograph(), "no map that can be read; there are: .png"),
        (b"", "no map that can be read"),
        (npz(a=METRES, b=METRES), "which array is the map. say 'dataset'; there are: a, b"),
        (hdf5(a=METRES, b=METRES), "which array is the map. say 'dataset'; there are: a, b"),
        (npy(np.zeros((4, 5, 3))), "has the shape .4, 5, 3."),
        (tiff(np.zeros((4, 5, 3), np.uint8) + np.arange(3, dtype=np.uint8)), "is a picture in colours"),
        (npy(np.array([{"a": 1}], dtype=object)), "pickled objects, which are never loaded"),
        (tiff(METRES.astype(np.float32))[:200], "damaged TIFF"),
        (png16(METRES * 1000)[:90], "damaged PNG"),
        (npz(depth=np.zeros(10))[:40], "damaged NPZ"),
        (npy(np.zeros((40_000, 1), np.uint8)), "40000 pixels in the header, where 1 to 20000 are allowed"),
        (npz(depth=np.zeros(300_000)), "'depth' is larger than 20000 pixels can be"),
    ],
)
def test_files_that_are_no_map_are_named(data: bytes, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        read_map(data, "x/0.png", max_pixels=20_000)


@pytest.mark.parametrize(
    "data",
    [
        b"50 51 32 24",
        b"fx=50, fy=51, cx=32, cy=24".replace(b"fx=", b"")
        .replace(b"fy=", b"")
        .replace(b"cx=", b"")
        .replace(b"cy=", b""),
        b"[[50, 0, 32], [0, 51, 24], [0, 0, 1]]",
        b"50 0 32 0\n0 51 24 0\n0 0 1 0\n0 0 0 1\n",
        json.dumps({"fx": 50, "fy": 51, "cx": 32, "cy": 24}).encode(),
        json.dumps({"K": [[50, 0, 32], [0, 51, 24], [0, 0, 1]]}).encode(),
        json.dumps({"width": 64, "intrinsic_matrix": [50, 0, 0, 0, 51, 0, 32, 24, 1]}).encode(),
        npy(np.array([[50, 0, 32], [0, 51, 24], [0, 0, 1.0]])),
    ],
)
def test_cameras_in_many_forms_are_one(data: bytes) -> None:
    assert read_camera(data, "camera") == Intrinsics(50, 51, 32, 24)


@pytest.mark.parametrize(
    "data", [b"", b"50 51 32", b"{}", b"[[1, 2]", b"-50 51 32 24", b'{"K": "wide"}', b"nan nan 1 1"]
)
def test_what_is_no_camera_is_named(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"^camera\.txt"):
        read_camera(data, "camera.txt")


def test_a_depth_file_of_another_size_than_its_image_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, {"a/rgb/0.jpg": photograph(size=(60, 80)), "a/depth/0.png": png16(METRES)})
    with pytest.raises(FrameError, match=r"depth is 64 × 48, but a/rgb/0\.jpg is 80 × 60"):
        only(root, **PATTERNS)


def test_frames_of_a_benchmark_are_all_judged_by(tmp_path: Path) -> None:
    files = {f"{scene}/rgb/0.jpg": photograph(n) for n, scene in enumerate("abcd")}
    root = write(tmp_path, {**files, **{f"{scene}/depth/0.png": png16(METRES * 1000) for scene in "abcd"}})
    options = {**PATTERNS, "unit": "mm"}
    for group, splits in {"benchmark": {"test"}, "real": {"train", "val"}}.items():
        values = {"reader": "pairs", "path": str(root), "group": group, "val_share": 0.25 * (group == "real")}
        source = SourceParams.model_validate({**values, "options": options})
        summary = ingest("mine", source, IngestParams(), tmp_path / "out" / group)
        assert summary.frames == 4
        assert {split for split, count in summary.splits.items() if count} == splits
