"""ETH3D, DIODE, Sintel, ScanNet, iBims-1 and TartanAir V2: values survive each format to the last bit it keeps."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dav2.data.frame import Frame, FrameError
from dav2.data.images import encode_jpeg, encode_png
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.sources.formats import read_png

HEIGHT, WIDTH = 40, 60
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
PICTURE = ((ROWS + COLUMNS)[..., None] * np.array([1, 2, 1])).astype(np.uint8)
DEPTH = (2 + 0.05 * ROWS + 0.01 * COLUMNS).astype(np.float32)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def only(reader: str, path: Path, **options: Any) -> Frame:
    source = open_source(reader, path, "set", options)
    (item,) = source.index()
    assert item.split in ("test", "")
    return source.read(item)


def write_eth3d(root: Path, depth: np.ndarray, picture: bytes) -> None:
    put(root / "courtyard" / "images" / "dslr_images" / "DSC_0286.JPG", picture)
    put(root / "courtyard" / "ground_truth_depth" / "dslr_images" / "DSC_0286.JPG", depth.astype("<f4").tobytes())


def test_eth3d_depth_is_headerless_float32_with_inf_for_unknown(tmp_path: Path) -> None:
    depth = DEPTH.copy()
    depth[3, 4], depth[5, 6] = np.inf, 0
    write_eth3d(tmp_path, depth, encode_jpeg(PICTURE))
    frame = only("eth3d", tmp_path)
    assert frame.key == "set/courtyard/dsc_0286"
    assert frame.depth is not None
    assert np.isnan(frame.depth[3, 4])
    assert np.isnan(frame.depth[5, 6])
    known = np.isfinite(frame.depth)
    assert known.sum() == DEPTH.size - 2
    np.testing.assert_array_equal(frame.depth[known], DEPTH[known])


def test_eth3d_depth_of_another_length_is_quarantined(tmp_path: Path) -> None:
    write_eth3d(tmp_path, DEPTH[:-1], encode_jpeg(PICTURE))
    with pytest.raises(FrameError, match="9360 bytes where 60 × 40 float32 need 9600"):
        only("eth3d", tmp_path)


def test_eth3d_refuses_an_image_that_exif_turns(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(PICTURE).save(path, exif=exif)
    write_eth3d(tmp_path / "set", DEPTH, path.read_bytes())
    with pytest.raises(FrameError, match="not an upright JPEG"):
        only("eth3d", tmp_path / "set")


def test_archives_that_cannot_be_read_in_place_are_named(tmp_path: Path) -> None:
    put(tmp_path / "courtyard_dslr_jpg.7z", b"7z")
    with pytest.raises(SourceError, match=r"courtyard_dslr_jpg\.7z .* unpack it first"):
        open_source("eth3d", tmp_path, "e", {}).index()


def test_diodes_mask_says_where_depth_holds(tmp_path: Path) -> None:
    stem = tmp_path / "val" / "indoors" / "scene_00019" / "scan_00183" / "00019_00183_indoors_000_010"
    put(stem.with_name(stem.name + ".png"), encode_png(PICTURE))
    mask = np.ones((HEIGHT, WIDTH))
    mask[10:20, 5] = 0
    np.save(stem.with_name(stem.name + "_depth.npy"), DEPTH[..., None])
    np.save(stem.with_name(stem.name + "_depth_mask.npy"), mask)
    frame = only("diode", tmp_path)
    assert frame.key == "set/indoors/scene_00019/scan_00183/00019_00183_indoors_000_010"
    np.testing.assert_array_equal(frame.depth, np.where(mask > 0, DEPTH, np.nan).astype(np.float32))


@pytest.mark.parametrize("rendering", ["final", "clean"])
def test_sintel_reads_its_depth_and_camera_files(tmp_path: Path, rendering: str) -> None:
    training = tmp_path / "training"
    put(training / rendering / "alley_1" / "frame_0001.png", encode_png(PICTURE))
    tag = struct.pack("<f", 202021.25)
    put(training / "depth" / "alley_1" / "frame_0001.dpt", tag + struct.pack("<ii", WIDTH, HEIGHT) + DEPTH.tobytes())
    matrix = np.array([[1120.0, 0, 29.5], [0, 1121.0, 19.5], [0, 0, 1]])
    put(training / "camdata_left" / "alley_1" / "frame_0001.cam", tag + matrix.tobytes() + np.eye(3, 4).tobytes())
    frame = only("sintel", tmp_path, rendering=rendering)
    np.testing.assert_array_equal(frame.depth, DEPTH)
    np.testing.assert_array_equal(frame.rgb, PICTURE)
    assert frame.intrinsics == (1120.0, 1121.0, 29.5, 19.5)


def sens(depths: list[np.ndarray], picture: bytes) -> bytes:
    name = b"StructureSensor"
    camera = np.eye(4, dtype="<f4")
    camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2] = 577.5, 578.5, 30, 20
    data = struct.pack("<IQ", 4, len(name)) + name
    data += 2 * np.eye(4, dtype="<f4").tobytes() + camera.tobytes() + np.eye(4, dtype="<f4").tobytes()
    data += struct.pack("<2i4IfQ", 2, 1, 2 * WIDTH, 2 * HEIGHT, WIDTH, HEIGHT, 1000.0, len(depths))
    for number, depth in enumerate(depths):
        packed = zlib.compress(np.round(depth * 1000).astype("<u2").tobytes())
        data += np.eye(4, dtype="<f4").tobytes() + struct.pack("<4Q", number, number, len(picture), len(packed))
        data += picture + packed
    return data


def test_scannets_recordings_are_read_frame_by_frame(tmp_path: Path) -> None:
    large = np.repeat(np.repeat(PICTURE, 2, 0), 2, 1)
    depths = [DEPTH + number for number in range(5)]
    put(tmp_path / "scans" / "scene0000_00.sens", sens(depths, encode_jpeg(large, 98)))
    source = open_source("scannet", tmp_path, "set", {"every": 2})
    items = source.index()
    assert [item.key for item in items] == [f"set/scene0000_00/00000{number}" for number in (0, 2, 4)]
    frame = source.read(items[2])
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, DEPTH + 4, atol=5.1e-4)
    assert np.abs(frame.rgb.astype(int) - PICTURE).max() < 10
    assert frame.intrinsics == (577.5, 578.5, 30, 20)


def test_a_scannet_recording_cut_short_gives_its_whole_frames_and_one_bad_one(tmp_path: Path) -> None:
    data = sens([DEPTH, DEPTH + 1], encode_jpeg(PICTURE))
    put(tmp_path / "scene0000_00.sens", data[:-50])
    source = open_source("scannet", tmp_path, "set", {})
    first, second = source.index()
    assert source.read(first).depth is not None
    with pytest.raises(FrameError, match=r"scene0000_00\.sens"):
        source.read(second)
    put(tmp_path / "scene0000_00.sens", data[: len(data) // 2 + 200])
    refused = [item for item in source.index() if "refused" in item.extra]
    assert len(refused) == 1
    with pytest.raises(FrameError, match="ends at frame 1 of 2"):
        source.read(refused[0])


def test_scannets_export_is_in_millimetres(tmp_path: Path) -> None:
    scene = tmp_path / "scene0011_00"
    put(scene / "color" / "000000.jpg", encode_jpeg(np.repeat(np.repeat(PICTURE, 2, 0), 2, 1)))
    put(scene / "depth" / "000000.png", encode_png(np.round(DEPTH * 1000).astype(np.uint16)))
    frame = only("scannet", tmp_path)
    np.testing.assert_allclose(frame.depth, DEPTH, atol=5.1e-4)


def masks() -> dict[str, np.ndarray]:
    """As the set has them: > 0 where depth holds, and the edges."""
    invalid, transparent, edges = (np.full((HEIGHT, WIDTH), value, np.uint8) for value in (255, 255, 0))
    invalid[0], transparent[:, 0], edges[7, 8:20] = 0, 0, 255
    return {"mask_invalid": invalid, "mask_transp": transparent, "edges": edges}


@pytest.mark.parametrize("form", ["raw", "mat"])
def test_ibims_keeps_edges_and_drops_glass_in_both_forms(tmp_path: Path, form: str) -> None:
    parts = masks()
    if form == "raw":
        root = tmp_path / "ibims1_core_raw"
        put(root / "rgb" / "corridor_01.png", encode_png(PICTURE))
        put(root / "depth" / "corridor_01.png", encode_png(np.round(DEPTH / 50 * 65535).astype(np.uint16)))
        for name, mask in parts.items():
            put(root / name / "corridor_01.png", encode_png(mask))
    else:
        from scipy.io import savemat

        path = put(tmp_path / "ibims1_core_mat" / "corridor_01.mat", b"")
        savemat(path, {"data": {"rgb": PICTURE, "depth": DEPTH, **parts}})
    frame = only("ibims", tmp_path)
    assert frame.key == "set/core/corridor_01"
    assert frame.depth is not None
    kept = (parts["mask_invalid"] > 0) & (parts["mask_transp"] > 0)
    np.testing.assert_allclose(frame.depth[kept], DEPTH[kept], atol=50 / 65535)
    assert np.isnan(frame.depth[~kept]).all()
    edges = read_png(base64.b64decode(frame.extra["edges"]), "edges")
    np.testing.assert_array_equal(edges > 0, parts["edges"] > 0)


def test_tartanair_v2_unpacks_floats_from_the_four_channels_of_a_png(tmp_path: Path) -> None:
    folder = tmp_path / "AbandonedCable" / "Data_easy" / "P000"
    put(folder / "image_lcam_front" / "000007_lcam_front.png", encode_png(PICTURE))
    depth = DEPTH.copy()
    depth[0] = 20_000
    path = put(folder / "depth_lcam_front" / "000007_lcam_front_depth.png", b"")
    # The set's own tool hands the bytes of each float to OpenCV as a four-channel image.
    assert cv2.imwrite(str(path), depth.view(np.uint8).reshape(HEIGHT, WIDTH, 4))
    frame = only("tartanair_v2", tmp_path)
    assert frame.key == "set/abandonedcable/easy/p000/000007"
    assert frame.depth is not None
    np.testing.assert_array_equal(frame.depth[1:], DEPTH[1:])
    assert np.isposinf(frame.depth[0]).all()
    assert frame.intrinsics == (30, 30, 30, 20)


@pytest.mark.parametrize("damage", ["head", "body", "end"])
def test_a_damaged_mat_of_ibims_is_refused_by_its_name(tmp_path: Path, damage: str) -> None:
    from scipy.io import savemat

    path = tmp_path / "ibims1_core_mat" / "hall_01.mat"
    path.parent.mkdir()
    savemat(path, {"data": {"rgb": np.random.default_rng(0).integers(0, 255, (20, 30, 3))}}, do_compression=True)
    data = bytearray(path.read_bytes())
    span = {"head": slice(0, 40), "body": slice(900, 1000), "end": slice(len(data) - 300, len(data))}[damage]
    data[span] = bytes(span.stop - span.start)
    path.write_bytes(data)
    source = open_source("ibims", tmp_path, "ibims", {})
    (item,) = source.index()
    with pytest.raises(FrameError, match=r"hall_01\.mat: no readable struct 'data'"):
        source.read(item)
