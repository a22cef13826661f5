"""Writers of public layouts, read back with the plainest means there are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from dav2.scenes.capture import Capture, rotation
from dav2.scenes.layouts import blendedmvs, da2k, hypersim, image_folder, irs, kitti, nyu, tartanair, vkitti2
from tests.scenes import analytic


@pytest.fixture(scope="module")
def capture() -> Capture:
    return analytic.capture()


def test_hypersim_stores_half_precision_distance_along_the_ray(tmp_path: Path, capture: Capture) -> None:
    hypersim.write_frame(tmp_path, "ai_001_002", "cam_00", 7, capture)
    images = tmp_path / "ai_001_002/images"
    with h5py.File(images / "scene_cam_00_geometry_hdf5/frame.0007.depth_meters.hdf5") as file:
        assert list(file) == ["dataset"]
        stored = file["dataset"]
        assert (stored.dtype, stored.shape, stored.compression, stored.compression_opts) == ("f2", (48, 64), "gzip", 9)
        distance = stored[:]
    sky = np.isinf(capture.depth)
    assert np.isnan(distance[sky]).all()
    x = (np.arange(64) + 0.5 - 32) / capture.camera.fx
    y = (np.arange(48) + 0.5 - 24) / capture.camera.fy
    slant = np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2)
    np.testing.assert_allclose(distance[~sky], (capture.depth * slant)[~sky], rtol=1e-3)
    assert Image.open(images / "scene_cam_00_final_preview/frame.0007.tonemap.jpg").size == (64, 48)
    with h5py.File(images / "scene_cam_00_geometry_hdf5/frame.0007.render_entity_id.hdf5") as file:
        assert file["dataset"].dtype == np.int16
        assert (file["dataset"][:][sky] == -1).all()


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (8.0, -5.0)])
def test_hypersim_camera_matrix_turns_distance_into_planar_depth(tmp_path: Path, tilt: tuple[float, float]) -> None:
    capture = analytic.capture(tilt=rotation(*tilt))
    hypersim.write_frame(tmp_path, "ai_001_001", "cam_00", 0, capture)
    hypersim.write_tables(tmp_path, {"ai_001_001": capture.camera}, [hypersim.Row("ai_001_001", "cam_00", 0, "train")])
    row = next(csv.DictReader((tmp_path / "metadata_camera_parameters.csv").open()))
    matrix = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
    u, v = np.meshgrid(np.linspace(-1 + 1 / 64, 1 - 1 / 64, 64), np.linspace(1 - 1 / 48, -1 + 1 / 48, 48))
    ray = np.stack([u, v, np.ones_like(u)], -1) @ matrix.T
    with h5py.File(tmp_path / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5") as file:
        planar = file["dataset"][:] * -ray[..., 2] / np.linalg.norm(ray, axis=-1)
    known = np.isfinite(capture.depth)
    np.testing.assert_allclose(planar[known], capture.depth[known], rtol=1e-3)


def test_hypersim_split_table_has_the_official_columns(tmp_path: Path, capture: Capture) -> None:
    rows = [hypersim.Row("a", "cam_00", 3, "val"), hypersim.Row("a", "cam_01", 0, "", "bad trajectory")]
    hypersim.write_tables(tmp_path, {"a": capture.camera}, rows)
    first, second = csv.DictReader((tmp_path / "metadata_images_split_scene_v1.csv").open())
    assert first == {
        "scene_name": "a",
        "camera_name": "cam_00",
        "frame_id": "3",
        "included_in_public_release": "True",
        "exclude_reason": "",
        "split_partition_name": "val",
    }
    assert (second["included_in_public_release"], second["exclude_reason"]) == ("False", "bad trajectory")


def test_hypersim_poses_are_in_asset_units_and_look_along_minus_z(tmp_path: Path, capture: Capture) -> None:
    hypersim.write_scene(tmp_path, "ai_001_001", {"cam_00": [capture.camera]})
    detail = tmp_path / "ai_001_001/_detail"
    unit = {
        r["parameter_name"]: float(r["parameter_value"]) for r in csv.DictReader((detail / "metadata_scene.csv").open())
    }
    with h5py.File(detail / "cam_00/camera_keyframe_positions.hdf5") as file:
        np.testing.assert_allclose(file["dataset"][:] * unit["meters_per_asset_unit"], [[0, 0, 1.5]])
    with h5py.File(detail / "cam_00/camera_keyframe_orientations.hdf5") as file:
        forward = file["dataset"][0] @ [0, 0, -1]
    np.testing.assert_allclose(forward, np.array([0, 5, -0.5]) / np.hypot(5, 0.5), atol=1e-9)


def test_vkitti2_depth_is_centimetres_with_65535_for_sky(tmp_path: Path, capture: Capture) -> None:
    vkitti2.write_frame(tmp_path, "Scene01", "fog", 12, capture)
    stored = cv2.imread(str(tmp_path / "Scene01/fog/frames/depth/Camera_0/depth_00012.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    sky = np.isinf(capture.depth)
    assert (stored[sky] == 65535).all()
    near = capture.depth < 600
    np.testing.assert_allclose(stored[near] / 100, capture.depth[near], atol=0.0051)
    assert (tmp_path / "Scene01/fog/frames/rgb/Camera_0/rgb_00012.jpg").exists()


def test_vkitti2_extrinsics_map_world_to_camera(tmp_path: Path, capture: Capture) -> None:
    vkitti2.write_text(tmp_path, "Scene01", "clone", [capture.camera])
    line = (tmp_path / "Scene01/clone/extrinsic.txt").read_text().splitlines()[1].split()
    matrix = np.array([float(v) for v in line[2:]]).reshape(4, 4)
    np.testing.assert_allclose(matrix @ [0, 0, 1.5, 1], [0, 0, 0, 1], atol=1e-6)
    header, values = (tmp_path / "Scene01/clone/intrinsic.txt").read_text().splitlines()
    assert header.split()[2:] == ["K[0,0]", "K[1,1]", "K[0,2]", "K[1,2]"]
    assert [float(v) for v in values.split()[2:]] == pytest.approx([55.425626, 55.425626, 31.5, 23.5])


def test_tartanair_depth_is_float32_metres_with_huge_sky(tmp_path: Path) -> None:
    capture = analytic.capture(fov=90)
    tartanair.write_frame(tmp_path, "ocean", "Hard", "P001", 3, capture)
    tartanair.write_poses(tmp_path, "ocean", "Hard", "P001", [capture.camera])
    folder = tmp_path / "ocean/Hard/P001"
    depth = np.load(folder / "depth_left/000003_left_depth.npy", allow_pickle=False)
    assert depth.dtype == np.float32
    known = np.isfinite(capture.depth)
    assert (depth[known] == capture.depth[known]).all()
    assert (depth[~known] == 10_000).all()
    picture = np.asarray(Image.open(folder / "image_left/000003_left.png"))
    assert (picture == capture.rgb).all()
    tx, ty, tz, *quaternion = map(float, (folder / "pose_left.txt").read_text().split())
    assert (tx, ty, tz) == (0, 0, -1.5)
    assert np.linalg.norm(quaternion) == pytest.approx(1)


def test_tartanair_refuses_another_field_of_view(tmp_path: Path, capture: Capture) -> None:
    with pytest.raises(ValueError, match="90°"):
        tartanair.write_frame(tmp_path, "ocean", "Easy", "P000", 0, capture)


def test_irs_disparity_is_48_over_depth_in_channel_g(tmp_path: Path, capture: Capture) -> None:
    import OpenEXR

    irs.write_frame(tmp_path, "Home", "Flat001", 5, capture)
    with OpenEXR.File(str(tmp_path / "IRSDataset/Home/Flat001/d_00005.exr"), separate_channels=True) as file:
        channels = file.channels()
        assert list(channels) == ["G"]
        disparity = channels["G"].pixels
    assert disparity.dtype == np.float32
    np.testing.assert_allclose(disparity, 48 / capture.depth, rtol=1e-6)


def test_irs_lists_hold_every_seventh_frame_for_test(tmp_path: Path) -> None:
    irs.write_lists(tmp_path, [("Home", "Flat", frame) for frame in range(1, 15)])
    test = (tmp_path / "lists/irs_test.list").read_text().splitlines()
    train = (tmp_path / "lists/irs_train.list").read_text().splitlines()
    assert [line.split()[0] for line in test] == ["Home/Flat/l_00001.png", "Home/Flat/l_00008.png"]
    assert len(train) == 12
    assert train[0].split()[2] == "Home/Flat/d_00002.exr"


def test_blendedmvs_pfm_is_bottom_up_little_endian_with_zero_for_unknown(tmp_path: Path, capture: Capture) -> None:
    blendedmvs.write_frame(tmp_path, "5b7a3890fc8fcf6781e2593a", 2, capture, metres_per_unit=0.5)
    folder = tmp_path / "5b7a3890fc8fcf6781e2593a"
    kind, size, scale, raw = (folder / "rendered_depth_maps/00000002.pfm").read_bytes().split(b"\n", 3)
    assert (kind, size, float(scale)) == (b"Pf", b"64 48", -1.0)
    depth = np.frombuffer(raw, "<f4").reshape(48, 64)[::-1]
    known = np.isfinite(capture.depth)
    np.testing.assert_allclose(depth[known], capture.depth[known] * 2, rtol=1e-6)
    assert (depth[~known] == 0).all()
    masked = np.asarray(Image.open(folder / "blended_images/00000002_masked.jpg")).astype(int)
    assert masked[:8, :8].max() < 20
    words = (folder / "cams/00000002_cam.txt").read_text().split()
    assert words[0] == "extrinsic"
    assert words[17] == "intrinsic"
    near, _, _, far = map(float, words[27:])
    assert near < depth[known].min() < depth[known].max() < far


def test_da2k_annotations_name_the_closer_point_row_first(tmp_path: Path, capture: Capture) -> None:
    key = da2k.write_image(tmp_path, "aerial", "0001", capture.rgb)
    da2k.write_annotations(tmp_path, {key: [da2k.Pair((40, 3), (20, 60))]})
    content = json.loads((tmp_path / "DA-2K/annotations.json").read_text())
    assert content == {"images/aerial/0001.jpg": [{"point1": [40, 3], "point2": [20, 60], "closer_point": "point1"}]}
    assert (tmp_path / "DA-2K" / key).exists()


def test_da2k_refuses_a_kind_it_does_not_have(tmp_path: Path, capture: Capture) -> None:
    with pytest.raises(ValueError, match="no scene kind 'cave'"):
        da2k.write_image(tmp_path, "cave", "0001", capture.rgb)


def test_nyu_depth_is_millimetres_inside_the_sensor_range(tmp_path: Path) -> None:
    capture = analytic.capture(640, 480)
    nyu.write_frame(tmp_path, "kitchen", 9, capture)
    folder = tmp_path / "official_splits/test/kitchen"
    stored = cv2.imread(str(folder / "sync_depth_00009.png"), cv2.IMREAD_UNCHANGED)
    near = capture.depth < 9.9
    np.testing.assert_allclose(stored[near] / 1000, capture.depth[near], atol=5.1e-4)
    assert (stored[capture.depth > 10] == 0).all()
    picture = np.asarray(Image.open(folder / "rgb_00009.jpg"))
    assert picture[:6].mean() < 4


def test_nyu_refuses_another_size(tmp_path: Path, capture: Capture) -> None:
    with pytest.raises(ValueError, match="640 × 480"):
        nyu.write_frame(tmp_path, "kitchen", 9, capture)


def test_kitti_depth_is_sparse_and_scaled_by_256(tmp_path: Path) -> None:
    capture = analytic.capture(620, 188)
    drive = kitti.Drive("2011_09_26", "2011_09_26_drive_0002")
    kitti.write_frame(tmp_path, drive, 5, capture)
    kitti.write_lists(tmp_path, [(drive, 5)], {drive.date: capture.camera})
    truth = tmp_path / "data_depth_annotated/val/2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02"
    stored = cv2.imread(str(truth / "0000000005.png"), cv2.IMREAD_UNCHANGED)
    hit = stored > 0
    assert 0.03 < hit.mean() < 0.3
    np.testing.assert_allclose(stored[hit] / 256, capture.depth[hit], atol=0.002)
    line = (tmp_path / "splits/eigen_benchmark/test_files.txt").read_text().split()
    assert line == ["2011_09_26/2011_09_26_drive_0002_sync", "0000000005", "l"]
    assert (tmp_path / line[0] / "image_02/data/0000000005.jpg").exists()
    calibration = (tmp_path / "2011_09_26/calib_cam_to_cam.txt").read_text()
    matrix = next(row for row in calibration.splitlines() if row.startswith("P_rect_02:")).split()[1:]
    assert float(matrix[0]) == pytest.approx(capture.camera.fx, rel=1e-6)


def test_image_folder_pictures_are_jpegs_and_no_temporary_file_stays(tmp_path: Path, capture: Capture) -> None:
    image_folder.write_image(tmp_path, "indoor", "000_0", capture.rgb)
    assert [path.name for path in (tmp_path / "indoor").iterdir()] == ["000_0.jpg"]
