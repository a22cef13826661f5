"""Every file of a data set is used, left out by kind, or named as failed; half a frame is named whatever the set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from dav2.data.frame import FrameError
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.sources.formats import read_hdf5, read_npy
from dav2.data.store.ingest.check import look
from dav2.params import IngestParams
from dav2.scenes.layouts import image_folder

BLENDED = "5a3ca9cb270f0e3f14d0eddb"
DRIVE = "2011_09_26_drive_0002_sync"
KITTI_DEPTH = f"data_depth_annotated/val/{DRIVE}/proj_depth/groundtruth/image_02/{{:010d}}.png"
LAYOUTS: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {
    "vkitti2": (
        "Scene01/clone/frames/rgb/Camera_0/rgb_{:05d}.jpg",
        "Scene01/clone/frames/depth/Camera_0/depth_{:05d}.png",
        (),
        {},
    ),
    "tartanair": ("e/Easy/P000/image_left/{:06d}_left.png", "e/Easy/P000/depth_left/{:06d}_left_depth.npy", (), {}),
    "tartanair_v2": (
        "e/Data_easy/P000/image_lcam_front/{:06d}_lcam_front.png",
        "e/Data_easy/P000/depth_lcam_front/{:06d}_lcam_front_depth.png",
        (),
        {},
    ),
    "irs": ("Home/a/l_{:05d}.png", "Home/a/d_{:05d}.exr", (), {}),
    "blendedmvs": (f"{BLENDED}/blended_images/{{:08d}}.jpg", f"{BLENDED}/rendered_depth_maps/{{:08d}}.pfm", (), {}),
    "hypersim": (
        "ai_001_001/images/scene_cam_00_final_preview/frame.{:04d}.tonemap.jpg",
        "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.{:04d}.depth_meters.hdf5",
        (),
        {"official_split": False, "legacy_886": True},
    ),
    "sintel": ("training/final/alley/frame_{:04d}.png", "training/depth/alley/frame_{:04d}.dpt", (), {}),
    "diode": (
        "val/indoors/scene_1/scan_1/{}.png",
        "val/indoors/scene_1/scan_1/{}_depth.npy",
        ("val/indoors/scene_1/scan_1/{}_depth_mask.npy",),
        {},
    ),
    "eth3d": ("a/images/dslr_images/DSC_{}.JPG", "a/ground_truth_depth/dslr_images/DSC_{}.JPG", (), {}),
    "ibims": ("rgb/{}.png", "depth/{}.png", ("mask_invalid/{}.png", "mask_transp/{}.png", "edges/{}.png"), {}),
    "nyu": ("test/office/rgb_{:05d}.jpg", "test/office/sync_depth_{:05d}.png", (), {}),
    "kitti": (f"2011_09_26/{DRIVE}/image_02/data/{{:010d}}.png", KITTI_DEPTH, (), {}),
    "scannet": ("scene0000_00/color/{}.jpg", "scene0000_00/depth/{}.png", (), {}),
}


@pytest.mark.parametrize("gone", [0, 1])
@pytest.mark.parametrize("reader", LAYOUTS)
def test_half_a_frame_is_counted_and_named(tmp_path: Path, reader: str, gone: int) -> None:
    image, depth, others, options = LAYOUTS[reader]
    for number in (1, 2):
        for name in (image, depth, *others):
            path = tmp_path / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / (image, depth)[gone].format(2)).unlink()
    left = (image, depth)[1 - gone].format(2)
    source = open_source(reader, tmp_path, "set", options)
    items = source.index()
    accounts = source.accounts
    refused = {item.paths[0]: item.extra["refused"] for item in items if "refused" in item.extra}
    if reader == "kitti":
        # Its recordings and annotations are published apart, and neither covers the other.
        assert not refused and any(left in note for note in source.notes())
    else:
        assert left in refused and "half a frame" in refused[left]
        found = look(source, 1, IngestParams())
        assert any("half a frame" in reason for _, reason in found.problems)
    assert sum("refused" not in item.extra for item in items) == 1
    assert accounts.found == sum(path.is_file() for path in tmp_path.rglob("*") if "cache" not in path.parts)
    assert accounts.found == accounts.used + accounts.left_out.total() + accounts.failed


def test_what_a_folder_holds_besides_is_named_by_kind(tmp_path: Path) -> None:
    root = tmp_path / "set"
    image_folder.write_image(root, "a", "1", np.zeros((40, 60, 3), np.uint8))
    for name in ("a/x.heic", "a/y.heic", "a/notes.txt", "a/._1.png", ".DS_Store", "a/readme"):
        (root / name).touch()
    os.mkfifo(root / "a/pipe.jpg")
    (root / "a/endless.jpg").symlink_to("/dev/zero")
    (root / "a/gone.jpg").symlink_to("nowhere")
    (root / "a/self.jpg").symlink_to("self.jpg")
    (root / "a/up").symlink_to(root)
    source = open_source("image_folder", root, "set", {})
    items = source.index()
    assert source.accounts.used == 1 and source.accounts.failed == 4
    kinds = dict(source.accounts.left_out)
    link, noise = kinds.pop("link to a folder that is read already"), kinds.pop("left by a file manager")
    assert (link, noise) == (1, 2)
    assert {k: v for k, v in kinds.items() if v} == {"HEIC": 2, "TXT": 1, "without a suffix": 1}
    told = {item.paths[0]: item.extra["refused"] for item in items if "refused" in item.extra}
    assert "named pipe" in told["a/pipe.jpg"] and "device" in told["a/endless.jpg"]
    assert told.keys() == {"a/pipe.jpg", "a/endless.jpg", "a/gone.jpg", "a/self.jpg"}


def test_a_damaged_side_file_costs_itself_alone(tmp_path: Path) -> None:
    image, depth, _, _ = LAYOUTS["vkitti2"]
    for name in (image, depth):
        (tmp_path / name.format(1)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name.format(1)).touch()
    (tmp_path / "Scene01/clone/intrinsic.txt").write_text("frame camera\n0 0 wide as can be\n")
    source = open_source("vkitti2", tmp_path, "set", {})
    told = {item.paths[0]: item.extra.get("refused") for item in source.index()}
    assert "could not convert" in str(told.pop("Scene01/clone/intrinsic.txt")) and list(told.values()) == [None]


@pytest.mark.parametrize("text", ["[" * 200_000, "{", '{"images/a/b.jpg": 3}', "[]", "\ufeff{}"])
def test_annotations_that_are_none_are_named_or_cost_their_image(tmp_path: Path, text: str) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/a/b.jpg").touch()
    (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
    source = open_source("da2k", tmp_path, "set", {})
    try:
        items = source.index()
    except SourceError as error:
        assert "annotations.json" in str(error) or "no data" in str(error)
    else:
        assert "annotation is damaged" in items[0].extra["refused"]


def test_a_point_with_one_number_costs_its_image(tmp_path: Path) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/a/b.jpg").touch()
    (tmp_path / "annotations.json").write_text(
        '{"images/a/b.jpg": [{"point1": [1], "point2": [1, 2], "closer_point": "point1"}]}'
    )
    (item,) = open_source("da2k", tmp_path, "set", {}).index()
    assert "a point has a row and a column" in item.extra["refused"]


def test_the_split_of_nyu_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "nyu_depth_v2_labeled.mat").touch()
    (tmp_path / "splits.mat").write_bytes(b"x" * 500)
    with pytest.raises(SourceError, match=r"splits\.mat"):
        open_source("nyu", tmp_path, "set", {}).index()
    savemat(tmp_path / "splits.mat", {"testNdxs": np.array([[1]])})
    assert len(open_source("nyu", tmp_path, "set", {}).index()) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_lists_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    image_folder.write_image(tmp_path / "set", "a", "1", np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "list.txt").write_text("a/1.png\n", encoding=encoding)
    assert len(open_source("image_folder", tmp_path / "set", "s", {"list": str(tmp_path / "list.txt")}).index()) == 1


@pytest.mark.parametrize(("content", "words"), [(b"\xe9.png\n", "UTF-8"), (b"\n", "names nothing"), (None, "pipe")])
def test_a_list_that_is_none_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    image_folder.write_image(tmp_path / "set", "a", "1", np.zeros((40, 60, 3), np.uint8))
    path = tmp_path / "list.txt"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises((SourceError, OSError), match=words):
        open_source("image_folder", tmp_path / "set", "s", {"list": str(path)}).index()


def test_rules_that_are_not_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(SourceError, match=r"rules\.yaml"):
        open_source("image_folder", tmp_path, "s", {"rules": str(tmp_path / "rules.yaml")})


def hdf5(path: Path, **settings: Any) -> bytes:
    with h5py.File(path, "w") as file:
        file.create_dataset("dataset", **settings)
    return path.read_bytes()


def test_hdf5_that_reaches_elsewhere_or_promises_what_it_has_not_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 64)
    outside = hdf5(tmp_path / "a.h5", shape=(8, 8), dtype="u1", external=[(str(secret), 0, 64)])
    empty = hdf5(tmp_path / "b.h5", shape=(9000, 9000), dtype="f8")
    record = hdf5(tmp_path / "c.h5", shape=(4, 4), dtype=np.dtype([("a", "V100000")]))
    layout = h5py.VirtualLayout((8, 8), "u1")
    layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "dataset", (8, 8))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_virtual_dataset("dataset", layout)
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["dataset"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "dataset")
    virtual, linked = (tmp_path / "d.h5").read_bytes(), (tmp_path / "e.h5").read_bytes()
    for data, words in (
        (outside, "other files"),
        (empty, "hardly any are stored"),
        (record, "plain numbers"),
        (virtual, "other files"),
        (linked, "another file"),
    ):
        with pytest.raises(FrameError, match=words):
            read_hdf5(data, "x.hdf5")
    packed = hdf5(tmp_path / "f.h5", data=np.ones((500, 500)), compression="gzip")
    assert read_hdf5(packed, "x.hdf5").sum() == 250_000


@pytest.mark.parametrize("header", ["(-2, -2)", "(2, 2)", str((1,) * 70)])
@pytest.mark.parametrize("kind", ["|V0", "<f4", "<c8"])
def test_npy_of_impossible_shape_or_type_is_a_named_failure(header: str, kind: str) -> None:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {header}, }}\n".encode()
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    if (header, kind) == ("(2, 2)", "<f4"):
        assert read_npy(data, "x.npy").shape == (2, 2)
        return
    with pytest.raises(FrameError, match=r"x\.npy"):
        read_npy(data, "x.npy")
