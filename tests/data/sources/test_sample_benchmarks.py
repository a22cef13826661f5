"""DA-2K, NYUv2, KITTI, Middlebury and packaged photographs are read as they come."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from dav2.data.frame import FrameError
from dav2.data.images import encode_jpeg
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.sources.photos import cut
from dav2.scenes.layouts import da2k, image_folder, kitti, nyu
from tests.scenes.analytic import capture

PICTURE = (np.indices((40, 60)).sum(0)[..., None] * np.array([1, 2, 1])).astype(np.uint8)


def skimage_file(file: str) -> dict[str, str]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    digest = hashlib.sha256((Path(spec.origin).parent / file).read_bytes()).hexdigest()
    return {"package": "skimage", "file": file, "sha256": digest}


def test_da2k_pairs_are_row_first_and_say_which_point_is_closer(tmp_path: Path) -> None:
    key = da2k.write_image(tmp_path, "aerial", "a.b c", PICTURE)
    da2k.write_annotations(tmp_path, {key: [da2k.Pair((39, 5), (2, 59))]})
    source = open_source("da2k", tmp_path, "da2k", {})
    (item,) = source.index()
    assert (item.key, item.split) == ("da2k/aerial/a_b_c", "test")
    frame = source.read(item)
    assert frame.extra == {"pairs": [{"point1": [39, 5], "point2": [2, 59], "closer": 1}], "scene": "aerial"}
    assert frame.rgb.shape == (40, 60, 3)


def test_da2k_is_read_from_its_zip_with_its_noise_and_garbled_names(tmp_path: Path) -> None:
    jpeg = encode_jpeg(PICTURE)
    pair = [{"point1": [0, 0], "point2": [1, 1], "closer_point": "point2"}]
    wanted = ["indoor/plain.jpg", "indoor/gone.jpg", "object/caf\u00e9.jpg", "object/\u5317\u4eac.jpg"]
    path = tmp_path / "DA-2K.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DA-2K/annotations.json", json.dumps({f"images/{name}": pair for name in wanted}))
        archive.writestr("DA-2K/images/indoor/plain.jpg", jpeg)
        archive.writestr("DA-2K/images/object/cafe\u0301.jpg", jpeg)
        archive.writestr("DA-2K/images/object/PEKING.jpg", jpeg)
        archive.writestr("__MACOSX/DA-2K/images/indoor/._plain.jpg", b"noise")
        archive.writestr("DA-2K/images/.DS_Store", b"noise")
    # UTF-8 bytes without the flag that says so: Python's own writer cannot make such a name.
    path.write_bytes(path.read_bytes().replace(b"PEKING", "\u5317\u4eac".encode()))

    source = open_source("da2k", path, "d", {})
    frames, refused = [], []
    for item in source.index():
        try:
            frames.append(source.read(item))
        except FrameError as error:
            refused.append(str(error))
    assert [frame.extra["scene"] for frame in frames] == ["indoor", "object", "object"]
    assert frames[0].extra["pairs"][0]["closer"] == 2
    assert len({frame.key for frame in frames}) == 3
    assert refused == [f"{path}: images/indoor/gone.jpg: annotated, but the image is not there"]


def test_da2k_quarantines_a_point_outside_its_image(tmp_path: Path) -> None:
    key = da2k.write_image(tmp_path, "indoor", "a", PICTURE)
    da2k.write_annotations(tmp_path, {key: [da2k.Pair((40, 5), (2, 5))]})
    source = open_source("da2k", tmp_path, "d", {})
    with pytest.raises(FrameError, match=r"point \(40, 5\) lies outside 60 × 40"):
        source.read(source.index()[0])


def test_nyus_export_is_in_millimetres_with_holes_unknown(tmp_path: Path) -> None:
    shot = capture(640, 480)
    nyu.write_frame(tmp_path, "bedroom", 46, shot)
    source = open_source("nyu", tmp_path, "nyu", {})
    (item,) = source.index()
    assert (item.key, item.split) == ("nyu/bedroom/00046", "test")
    depth = source.read(item).depth
    assert depth is not None
    seen = (shot.depth >= 0.3) & (shot.depth <= 9.99)
    np.testing.assert_allclose(depth[seen], shot.depth[seen], atol=5.1e-4)
    assert np.isnan(depth[~seen]).all()


def test_nyus_mat_file_is_transposed_and_its_test_rows_count_from_one(tmp_path: Path) -> None:
    import h5py
    from scipy.io import savemat

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    raw = random.uniform(1, 9, (3, 48, 64)).astype(np.float32)
    raw[2, 10, 20] = 0
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["rawDepths"] = raw.transpose(0, 2, 1)
        file["depths"] = raw.transpose(0, 2, 1) + 1
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[2]], "testNdxs": [[1], [3]]})
    source = open_source("nyu", tmp_path, "nyu", {})
    items = source.index()
    assert [item.key for item in items] == ["nyu/labeled/0001", "nyu/labeled/0003"]
    frame = source.read(items[1])
    np.testing.assert_array_equal(frame.rgb, images[2])
    assert frame.depth is not None
    assert np.isnan(frame.depth[10, 20])
    np.testing.assert_array_equal(np.nan_to_num(frame.depth), raw[2])
    filled = open_source("nyu", tmp_path, "nyu", {"depth": "filled"}).read(items[0]).depth
    np.testing.assert_array_equal(filled, raw[0] + 1)


def test_nyu_in_marigolds_form_scores_raw_depth_unless_asked_for_filled(tmp_path: Path) -> None:
    from dav2.scenes.layouts import files

    folder = tmp_path / "test" / "kitchen"
    files.write_png(folder / "rgb_0001.png", PICTURE)
    files.write_png(folder / "depth_0001.png", np.arange(2400, dtype=np.uint16).reshape(40, 60))
    files.write_png(folder / "filled_0001.png", np.arange(1, 2401, dtype=np.uint16).reshape(40, 60))
    for kind, first in (("raw", np.nan), ("filled", 0.001)):
        source = open_source("nyu", tmp_path, "n", {"depth": kind})
        depth = source.read(source.index()[0]).depth
        assert depth is not None
        np.testing.assert_allclose(depth[0, 0], first, rtol=1e-6)


def test_kitti_reads_sparse_depth_of_the_listed_frames_with_their_camera(tmp_path: Path) -> None:
    shot = capture(96, 40)
    drive = kitti.Drive("2011_09_26", "2011_09_26_drive_0002")
    for frame in (69, 70, 71):
        kitti.write_frame(tmp_path, drive, frame, shot, seed=frame)
    kitti.write_lists(tmp_path, [(drive, 69), (drive, 70), (drive, 99)], {drive.date: shot.camera})
    truth = tmp_path / "data_depth_annotated/val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02"
    (truth / "0000000070.png").unlink()
    source = open_source("kitti", tmp_path, "kitti", {})
    (item,) = source.index()
    assert item.key == "kitti/2011_09_26_drive_0002/image_02/0000000069"
    frame = source.read(item)
    hit = kitti.lidar_pattern(shot.depth, 69) & (shot.depth < 80)
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth[hit], shot.depth[hit], atol=0.5001 / 256)
    assert np.isnan(frame.depth[~hit]).all()
    np.testing.assert_allclose(frame.intrinsics, [shot.camera.fx, shot.camera.fy, 48, 20], rtol=1e-6)
    notes = source.notes()
    told = " ".join(notes)
    assert "frames: 2 of 3 of the list splits/eigen_benchmark/test_files.txt; not there: " in told
    assert "left out: 1 frames have no annotated depth: " in told and "0000000070" in told


def test_kitti_takes_lists_that_pair_image_and_depth(tmp_path: Path) -> None:
    drive = kitti.Drive("2011_09_26", "2011_09_26_drive_0002")
    for frame in (1, 2):
        kitti.write_frame(tmp_path, drive, frame, capture(96, 40))
    image = "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000002.png"
    depth = "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000002.png"
    (tmp_path / "eigen_test_files_with_gt.txt").write_text(f"{image} {depth} 721.5377", encoding="utf-8")
    (item,) = open_source("kitti", tmp_path, "k", {}).index()
    assert item.key.endswith("0000000002")
    with pytest.raises(SourceError, match=r"no list file 'mine\.txt'"):
        open_source("kitti", tmp_path, "k", {"list": "mine.txt"}).index()


def test_middleburys_depth_is_one_over_disparity(tmp_path: Path) -> None:
    left, disparity = (skimage_file(f"data/motorcycle_{kind}") for kind in ("left.png", "disp.npz"))
    pair = {
        "package": "skimage",
        "left": left["file"],
        "disparity": disparity["file"],
        "left_sha256": left["sha256"],
        "disparity_sha256": disparity["sha256"],
    }
    (tmp_path / "middlebury.yaml").write_text(yaml.safe_dump({"pair": pair}), encoding="utf-8")
    source = open_source("middlebury", tmp_path, "middlebury", {})
    (item,) = source.index()
    frame = source.read(item)
    assert frame.depth is not None
    assert not frame.metric
    assert frame.rgb.shape == (500, 741, 3)
    known = frame.depth[np.isfinite(frame.depth)]
    assert 1 / known.max() == pytest.approx(7.19, abs=0.01)
    assert 1 / known.min() == pytest.approx(59.9, abs=0.05)
    assert np.isnan(frame.depth).mean() == pytest.approx(0.073, abs=0.001)


def write_photos(root: Path, **changes: str) -> None:
    entry = {"name": "astronaut", "licence": "public domain", **skimage_file("data/astronaut.png"), **changes}
    (root / "photos.yaml").write_text(yaml.safe_dump({"photographs": [entry]}), encoding="utf-8")


def test_packaged_photographs_are_cut_into_the_same_views_every_time(tmp_path: Path) -> None:
    write_photos(tmp_path)
    source = open_source("photos", tmp_path, "photos", {"views": 6})
    items = source.index()
    assert [item.key for item in items] == [f"photos/astronaut/view_{view:04d}" for view in range(6)]
    frames = [source.read(item) for item in items]
    assert frames[0].rgb.shape == (512, 512, 3)
    assert frames[0].extra == {"licence": "public domain"}
    assert len({frame.rgb.tobytes() for frame in frames}) == 6
    again = open_source("photos", tmp_path, "photos", {"views": 3})
    np.testing.assert_array_equal(again.read(again.index()[2]).rgb, frames[2].rgb)


def test_every_view_is_large_enough_and_lies_inside() -> None:
    sides = []
    for view in range(1, 300):
        top, left, height, width = cut("coffee", view, 400, 600)
        assert 0 <= top <= 400 - height
        assert 0 <= left <= 600 - width
        sides.append(min(height, width))
    assert min(sides) >= 160
    assert max(sides) > 300


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sha256": "0" * 64}, FrameError, "sha256 differs"),
        ({"file": "data/nothing.png"}, FrameError, "cannot be read"),
        ({"package": "nosuchpackage"}, SourceError, "not installed"),
        ({"file": "../../secret"}, SourceError, "photographs.0.file.*climbs out"),
        ({"sha256": "abc"}, SourceError, "photographs.0.sha256"),
    ],
)
def test_a_wrong_entry_in_the_list_of_photographs_is_named(
    tmp_path: Path, changes: dict[str, str], error: type[Exception], message: str
) -> None:
    write_photos(tmp_path, **changes)
    source = open_source("photos", tmp_path, "photos", {})
    with pytest.raises(error, match=message):
        source.read(source.index()[0])


def test_any_folder_of_images_is_a_data_set(tmp_path: Path) -> None:
    image_folder.write_image(tmp_path, "holiday/2024", "a.1", PICTURE)
    image_folder.write_image(tmp_path, "holiday/2024", "a 1", PICTURE)
    (tmp_path / "holiday" / "notes.txt").write_text("x", encoding="utf-8")
    source = open_source("image_folder", tmp_path, "mine", {"licence": "CC0"})
    items = source.index()
    assert source.licence == "CC0"
    assert [item.scene for item in items] == ["holiday/2024", "holiday/2024"]
    assert len({item.key for item in items}) == 2
    assert all(item.key.startswith("mine/holiday/2024/a_1-") for item in items)
    assert source.read(items[0]).jpeg is not None


@pytest.mark.parametrize("line", ["b/1.png depth/1.png 721", "/home/author/set/pictures/b/1.jpg", "./pictures/b/1.png"])
def test_a_list_chooses_frames_by_path_wherever_it_was_written(tmp_path: Path, line: str) -> None:
    for folder in ("a", "b"):
        image_folder.write_image(tmp_path / "set", f"pictures/{folder}", "1", PICTURE)
    chosen = tmp_path / "mine.txt"
    chosen.write_text(f"# chosen\n{line}\nc/9.png\n", encoding="utf-8")
    source = open_source("image_folder", tmp_path / "set", "s", {"list": str(chosen)})
    assert [item.key for item in source.index()] == ["s/pictures/b/1"]
    assert f"frames: 1 of 2 of the list {chosen}; not there: c/9.png" in source.notes()


def test_a_list_that_could_mean_two_files_chooses_neither(tmp_path: Path) -> None:
    for folder in ("x/a", "y/a"):
        image_folder.write_image(tmp_path / "set", folder, "1", PICTURE)
    chosen = tmp_path / "mine.txt"
    chosen.write_text("a/1.jpg\n/elsewhere/1.jpg", encoding="utf-8")
    with pytest.raises(SourceError, match=r"none of the 2 lines of the list .*mine\.txt"):
        open_source("image_folder", tmp_path / "set", "s", {"list": str(chosen)}).index()
