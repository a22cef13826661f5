"""Every synthetic reader gives back the depth that was rendered, from files in the set's exact layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dav2.data.frame import Frame, FrameError
from dav2.data.raw.sources import SourceError, open_source
from dav2.scenes.capture import Camera, Capture, rotation
from dav2.scenes.layouts import blendedmvs, files, hypersim, irs, tartanair, vkitti2
from tests.scenes.analytic import capture

SCENE = "ai_001_001"
PID = "5a3ca9cb270f0e3f14d0eddb"


def only(path: Path, reader: str, **options: object) -> Frame:
    source = open_source(reader, path, "set", options)
    (item,) = source.index()
    return source.read(item)


def write_hypersim(root: Path, shot: Capture, split: str = "train", scene: str = SCENE) -> None:
    hypersim.write_frame(root, scene, "cam_00", 3, shot)
    hypersim.write_tables(root, {scene: shot.camera}, [hypersim.Row(scene, "cam_00", 3, split)])


def assert_depth(frame: Frame, shot: Capture, relative: float, *, sky_is_known: bool) -> None:
    assert frame.depth is not None
    surface = np.isfinite(shot.depth)
    np.testing.assert_allclose(frame.depth[surface], shot.depth[surface], rtol=relative)
    beyond = frame.depth[~surface]
    assert beyond.size
    assert np.isposinf(beyond).all() if sky_is_known else np.isnan(beyond).all()
    # JPEG loses a little; a wrong channel order or orientation loses everything.
    assert np.abs(frame.rgb.astype(int) - shot.rgb).mean() < 12


def within(shot: Capture, limit: float) -> Capture:
    """The capture with all that lies farther than the set can say taken for sky."""
    return Capture(shot.rgb, np.where(shot.depth < limit, shot.depth, np.float32(np.inf)), shot.shape, shot.camera)


# float16 keeps 11 bits.
HALF = 2.0**-11


def test_hypersim_turns_distance_along_the_ray_into_planar_depth(tmp_path: Path) -> None:
    shot = capture(fov=75)
    write_hypersim(tmp_path, shot, "val")
    source = open_source("hypersim", tmp_path, "hypersim", {})
    (item,) = source.index()
    assert (item.key, item.scene, item.split) == ("hypersim/ai_001_001/cam_00/0003", SCENE, "val")
    frame = source.read(item)
    assert_depth(frame, shot, 1.1 * HALF, sky_is_known=False)
    np.testing.assert_allclose(frame.intrinsics, [shot.camera.fx, shot.camera.fy, 32, 24], rtol=1e-9)
    assert frame.jpeg is not None


def test_hypersim_follows_a_tilted_lens_that_no_focal_length_describes(tmp_path: Path) -> None:
    shot = capture(tilt=rotation(pitch=14, yaw=6))
    write_hypersim(tmp_path, shot)
    frame = only(tmp_path, "hypersim")
    assert_depth(frame, shot, 1.1 * HALF, sky_is_known=False)
    assert frame.intrinsics is None
    legacy = only(tmp_path, "hypersim", legacy_886=True)
    surface = np.isfinite(shot.depth)
    assert np.abs(legacy.depth[surface] / shot.depth[surface] - 1).max() > 0.05


def test_hypersim_reads_an_off_centre_principal_point(tmp_path: Path) -> None:
    camera = Camera(64, 48, 50.0, 52.0, 30.0, 27.0)
    shot = capture()
    rays = camera.rays()
    distance = (shot.depth / shot.camera.rays()[..., 2]).astype(np.float64)
    moved = Capture(shot.rgb, (distance * rays[..., 2]).astype(np.float32), shot.shape, camera)
    write_hypersim(tmp_path, moved)
    frame = only(tmp_path, "hypersim")
    assert_depth(frame, moved, 1.1 * HALF, sky_is_known=False)
    np.testing.assert_allclose(frame.intrinsics, [50.0, 52.0, 30.0, 27.0], rtol=1e-9)


def test_hypersims_legacy_formula_is_886_pixels_at_width_1024(tmp_path: Path) -> None:
    shot = capture(width=128, height=96)
    write_hypersim(tmp_path, shot)
    frame = only(tmp_path, "hypersim", legacy_886=True)
    assert frame.intrinsics is not None
    focal = 886.81 / 8
    assert frame.intrinsics.fx == pytest.approx(focal)
    row, column = 80, 5
    ray = np.array([column + 0.5 - 64, row + 0.5 - 48, focal])
    distance = float(shot.distance()[row, column])
    assert frame.depth is not None
    assert frame.depth[row, column] == pytest.approx(distance * focal / np.linalg.norm(ray), rel=1.1 * HALF)


def test_the_official_cameras_agree_with_the_legacy_formula_only_where_the_lens_is_plain() -> None:
    from dav2.data.raw.sources.hypersim import intrinsics_of, legacy_factor, planar_factor

    # Rows of the toolkit's metadata_camera_parameters.csv.
    plain = (0.5773502886169104, 0.0, 0.0, 0.0, 0.4330127164626828, 0.0, 0.0, 0.0, -1.0)
    tilted = (
        0.7903225369878771,
        0.0,
        0.0,
        0.0,
        0.4439377392550294,
        0.0,
        0.0,
        -0.39276232880718764,
        -1.3688787409561254,
    )
    shifted = (
        0.5773759486498881,
        0.0,
        -0.011547518714890601,
        0.0,
        0.4330319614874161,
        0.0,
        0.0,
        0.0,
        -1.0000444443776726,
    )
    legacy, camera = legacy_factor(768, 1024)
    np.testing.assert_allclose(planar_factor(plain, 768, 1024), legacy, rtol=1e-5)
    np.testing.assert_allclose(intrinsics_of(plain, 768, 1024), camera, rtol=1e-5)
    assert np.abs(planar_factor(tilted, 768, 1024) / legacy - 1).max() > 0.05
    assert intrinsics_of(tilted, 768, 1024) is None
    moved = intrinsics_of(shifted, 768, 1024)
    assert moved is not None
    assert moved.cx == pytest.approx(512 * (1 + 0.011547518714890601 / 0.5773759486498881))
    for matrix in (plain, tilted, shifted):
        factor = planar_factor(matrix, 768, 1024)
        for row, column in ((0, 0), (100, 900), (767, 1023)):
            u, v = (2 * column + 1) / 1024 - 1, 1 - (2 * row + 1) / 768
            x, y, z = (matrix[3 * at] * u + matrix[3 * at + 1] * v + matrix[3 * at + 2] for at in range(3))
            assert factor[row, column] == pytest.approx(-z / (x * x + y * y + z * z) ** 0.5, rel=1e-6)


def test_hypersims_hdr_colour_gets_the_toolkits_tone_map(tmp_path: Path) -> None:
    shot = capture()
    radiance = np.random.default_rng(0).uniform(0, 4, (48, 64, 3)).astype(np.float32)
    write_hypersim(tmp_path, Capture(shot.rgb, shot.depth, shot.shape, shot.camera, radiance))
    frame = only(tmp_path, "hypersim", colour="hdr")
    stored = radiance.astype(np.float16).astype(np.float64)
    brightness = sorted((0.3 * r + 0.59 * g + 0.11 * b) for r, g, b in stored[shot.shape != -1])
    place = 0.9 * (len(brightness) - 1)
    low = int(place)
    p90 = brightness[low] + (place - low) * (brightness[low + 1] - brightness[low])
    expected = 255 * np.clip((0.8**2.2 / p90 * stored) ** (1 / 2.2), 0, 1)
    assert np.abs(frame.rgb - expected).max() <= 0.51
    assert frame.jpeg is None


def test_hypersim_masks_what_the_entity_map_says_is_nothing(tmp_path: Path) -> None:
    shot = capture()
    write_hypersim(tmp_path, shot)
    entity = shot.shape.copy()
    entity[40:, :10] = -1
    path = tmp_path / SCENE / "images" / "scene_cam_00_geometry_hdf5" / "frame.0003.render_entity_id.hdf5"
    hypersim.write_hdf5(path, entity)
    depth = only(tmp_path, "hypersim").depth
    assert depth is not None
    assert np.isnan(depth[40:, :10]).all()


def test_hypersim_leaves_out_unreleased_frames_and_known_bad_cameras_and_says_so(tmp_path: Path) -> None:
    shot = capture()
    for scene, camera in (("ai_004_009", "cam_00"), ("ai_004_009", "cam_01"), (SCENE, "cam_00")):
        for frame in (0, 1):
            hypersim.write_frame(tmp_path, scene, camera, frame, shot)
    rows = [hypersim.Row("ai_004_009", c, f, "train") for c in ("cam_00", "cam_01") for f in (0, 1)]
    rows += [
        hypersim.Row(SCENE, "cam_00", 0, "train"),
        hypersim.Row(SCENE, "cam_00", 1, "", "CONTENT FLAGGED FOR REMOVAL"),
    ]
    hypersim.write_tables(tmp_path, {"ai_004_009": shot.camera, SCENE: shot.camera}, rows)
    source = open_source("hypersim", tmp_path, "h", {})
    assert [i.key for i in source.index()] == [
        "h/ai_001_001/cam_00/0000",
        "h/ai_004_009/cam_00/0000",
        "h/ai_004_009/cam_00/0001",
    ]
    notes = "\n".join(source.notes())
    assert "left out: 2 frames, broken materials and renders (https://github.com/apple/ml-hypersim/issues/22)" in notes
    assert "left out: 1 frames that metadata_images_split_scene_v1.csv does not release" in notes


@pytest.mark.parametrize(
    ("missing", "option"),
    [("metadata_camera_parameters.csv", "legacy_886"), ("metadata_images_split_scene_v1.csv", "official_split: false")],
)
def test_hypersim_names_the_table_that_is_missing_and_the_way_out(tmp_path: Path, missing: str, option: str) -> None:
    write_hypersim(tmp_path, capture())
    (tmp_path / missing).unlink()
    with pytest.raises(SourceError, match=rf"{missing} is missing.*{option}"):
        open_source("hypersim", tmp_path, "h", {}).index()


@pytest.mark.parametrize("layout", ["merged", "apart"])
def test_virtual_kitti_reads_centimetres_and_sky_from_both_trees(tmp_path: Path, layout: str) -> None:
    shot = within(capture(), 655)
    written = tmp_path / "written"
    vkitti2.write_frame(written, "Scene01", "15-deg-left", 7, shot)
    vkitti2.write_frame(written, "Scene01", "15-deg-left", 7, shot, camera=1)
    vkitti2.write_text(written, "Scene01", "15-deg-left", [shot.camera])
    root = written
    if layout == "apart":
        root = tmp_path / "apart"
        for kind in ("rgb", "depth"):
            for path in (written / "Scene01" / "15-deg-left" / "frames" / kind).rglob("*.*"):
                target = root / kind / path.relative_to(written)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        (written / "Scene01" / "15-deg-left" / "intrinsic.txt").rename(
            root / "rgb" / "Scene01" / "15-deg-left" / "intrinsic.txt"
        )
    source = open_source("vkitti2", root, "vkitti2", {})
    (item,) = source.index()
    assert (item.key, item.scene) == ("vkitti2/scene01/15-deg-left/camera_0/00007", "Scene01")
    frame = source.read(item)
    assert_depth(frame, shot, 0.00501 / float(shot.depth.min()), sky_is_known=True)
    assert frame.intrinsics is not None
    np.testing.assert_allclose(frame.intrinsics, [shot.camera.fx, shot.camera.fy, 32, 24], atol=1e-5)
    assert len(open_source("vkitti2", root, "v", {"cameras": "both"}).index()) == 2


def test_virtual_kitti_without_its_text_archive_uses_the_published_camera(tmp_path: Path) -> None:
    vkitti2.write_frame(tmp_path, "Scene20", "clone", 0, capture(width=138, height=42))
    camera = only(tmp_path, "vkitti2").intrinsics
    np.testing.assert_allclose(camera, [725.0087 / 9, 725.0087 / 9, 69, 187.5 / 9], rtol=1e-6)


@pytest.mark.parametrize("nested", ["", "neighborhood/Easy/"])
def test_tartanair_reads_metres_and_sky_also_from_carelessly_unpacked_archives(tmp_path: Path, nested: str) -> None:
    shot = within(capture(fov=90), 1000)
    tartanair.write_frame(tmp_path / nested, "neighborhood", "Easy", "P001", 12, shot)
    source = open_source("tartanair", tmp_path, "tartanair", {})
    (item,) = source.index()
    assert (item.key, item.scene) == ("tartanair/neighborhood/easy/p001/000012", "neighborhood")
    frame = source.read(item)
    assert_depth(frame, shot, 1e-6, sky_is_known=True)
    assert frame.intrinsics == (32, 32, 32, 24)


def test_tartanair_calls_what_lies_outside_an_office_unknown_and_leaves_out_the_wrong_sky(tmp_path: Path) -> None:
    shot = capture(fov=90)
    tartanair.write_frame(tmp_path, "office", "Hard", "P000", 0, shot)
    tartanair.write_frame(tmp_path, "amusement", "Hard", "P000", 0, shot)
    source = open_source("tartanair", tmp_path, "t", {})
    (item,) = source.index()
    depth = source.read(item).depth
    assert depth is not None
    assert np.isnan(depth[shot.depth >= 30]).all()
    assert np.isfinite(depth[shot.depth < 30]).all()
    assert any("sky dome" in note for note in source.notes())


def test_irs_reads_disparity_pairs_unpadded_names_and_calls_windows_unknown(tmp_path: Path) -> None:
    shot = capture(fov=90)
    irs.write_frame(tmp_path, "Restaurant", "SCLRestaurant001_NightFall", 377, shot)
    folder = tmp_path / "IRSDataset" / "Restaurant" / "SCLRestaurant001_NightFall"
    (folder / "d_00377.exr").rename(folder / "d_377.exr")
    source = open_source("irs", tmp_path, "irs", {})
    (item,) = source.index()
    assert item.key == "irs/restaurant/sclrestaurant001_nightfall/00377"
    near = shot.depth < 200
    depth = source.read(item).depth
    assert depth is not None
    np.testing.assert_allclose(depth[near], shot.depth[near], rtol=1e-6)
    assert np.isnan(depth[~near]).all()


def test_irs_quarantines_a_disparity_of_another_size(tmp_path: Path) -> None:
    irs.write_frame(tmp_path, "Home", "A", 1, capture(width=64))
    folder = tmp_path / "IRSDataset" / "Home" / "A"
    files.write_exr(folder / "d_00001.exr", {"G": np.ones((24, 32), np.float32)})
    with pytest.raises(FrameError, match=r"d_00001\.exr: depth is 32 × 24, but .*l_00001\.png is 64 × 48"):
        only(tmp_path, "irs")


def test_blendedmvs_skips_masked_twins_and_is_not_metric(tmp_path: Path) -> None:
    shot = capture()
    blendedmvs.write_frame(tmp_path, PID, 5, shot, metres_per_unit=2.5)
    source = open_source("blendedmvs", tmp_path, "b", {})
    (item,) = source.index()
    assert (item.key, item.split) == (f"b/{PID}/00000005", "")
    frame = source.read(item)
    scaled = Capture(shot.rgb, shot.depth / np.float32(2.5), shot.shape, shot.camera)
    assert_depth(frame, scaled, 1e-6, sky_is_known=False)
    assert not frame.metric
    np.testing.assert_allclose(frame.intrinsics, [shot.camera.fx, shot.camera.fy, 32, 24], rtol=1e-8)


def test_blendedmvs_uses_the_official_validation_scenes_where_they_are(tmp_path: Path) -> None:
    for scene in (PID, "5b7a3890fc8fcf6781e2593a"):
        blendedmvs.write_frame(tmp_path, scene, 0, capture())
    items = open_source("blendedmvs", tmp_path, "b", {}).index()
    assert [(i.scene, i.split) for i in items] == [(PID, "train"), ("5b7a3890fc8fcf6781e2593a", "val")]


@pytest.mark.parametrize("bad", ["constant", "nothing"])
def test_depth_that_teaches_nothing_is_quarantined(tmp_path: Path, bad: str) -> None:
    shot = capture(fov=90)
    depth = np.full_like(shot.depth, 3.0 if bad == "constant" else np.nan)
    tartanair.write_frame(tmp_path, "ocean", "Easy", "P000", 0, Capture(shot.rgb, depth, shot.shape, shot.camera))
    path = tmp_path / "ocean" / "Easy" / "P000" / "depth_left" / "000000_left_depth.npy"
    np.save(path, depth)
    with pytest.raises(FrameError, match="everywhere" if bad == "constant" else "no pixel has a known"):
        only(tmp_path, "tartanair")


@pytest.mark.parametrize("damage", ["cut", "absent", "text", "pickle"])
def test_a_damaged_depth_file_is_quarantined_by_name(tmp_path: Path, damage: str) -> None:
    tartanair.write_frame(tmp_path, "ocean", "Easy", "P000", 0, capture(fov=90))
    source = open_source("tartanair", tmp_path, "t", {})
    (item,) = source.index()
    path = tmp_path / item.paths[1]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_bytes(b"404 not found")
    elif damage == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        path.unlink()
    with pytest.raises(FrameError, match=r"000000_left_depth\.npy"):
        source.read(item)


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="dvc pull"):
        open_source("irs", tmp_path / "nowhere", "irs", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty.*dvc pull"):
        open_source("irs", tmp_path / "empty", "irs", {}).index()
    files.write(tmp_path / "other" / "a.txt", b"x")
    with pytest.raises(SourceError, match="looks like IRS"):
        open_source("irs", tmp_path / "other", "irs", {}).index()


def test_an_unknown_reader_or_option_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no reader named 'hypersin'; there are: hypersim, vkitti2"):
        open_source("hypersin", tmp_path, "h", {})
    with pytest.raises(SourceError, match=r"options of source 'h': legacy.*allowed: .*legacy_886"):
        open_source("hypersim", tmp_path, "h", {"legacy": True})
