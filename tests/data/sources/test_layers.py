"""Normals, appearance and light of data sets in their public layouts, and bad ones among them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from dav2.cli import build
from dav2.data.frame import Frame, FrameError, Intrinsics
from dav2.data.raw.normals import normals_from_depth
from dav2.data.raw.sources import open_source
from dav2.data.raw.sources.layers import clean_light, clean_normals, clean_share, pinhole_rays, recomposition_psnr
from dav2.data.raw.testing import check_reader
from dav2.data.store.ingest import ingest
from dav2.data.store.manifest import read_manifest, read_quarantine
from dav2.data.store.shards import read_frame
from dav2.params import SourceParams, load
from dav2.scenes.capture import Capture, Layers, rotation
from dav2.scenes.layouts import files, hypersim, interiorverse
from dav2.scenes.make import make
from tests.data.builders import ingestion
from tests.scenes import analytic

ALL = ["normals", "albedo", "shading", "residual"]
BALL = analytic.Shapes(spheres=((0.3, 4.0, 0.8, 0.8),), boxes=())


def world_normals(capture: Capture) -> np.ndarray:
    """Normals of the ground and the ball, from their formulas."""
    rays = capture.camera.rays() @ capture.camera.to_world[:3, :3].T
    points = capture.camera.to_world[:3, 3] + rays * capture.distance()[..., None]
    ball = (points - np.array(BALL.spheres[0][:3])) / BALL.spheres[0][3]
    normals = np.where((capture.shape == 0)[..., None], ball, np.array([0.0, 0.0, 1.0]))
    return np.where((capture.shape >= 0)[..., None], normals, np.nan).astype(np.float32)


def taken_apart(seed: int = 0, **options: object) -> Capture:
    """Ground, a ball and walls of random paint in random light."""
    capture = analytic.capture(shapes=BALL, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    paint = rng.uniform(0.2, 0.9, (*capture.depth.shape, 3)).astype(np.float32)
    light = rng.uniform(0.5, 1.5, paint.shape).astype(np.float32)
    rest = np.where(rng.random(paint.shape) > 0.9, 0.2, 0).astype(np.float32)
    flat = np.full(capture.depth.shape, 0.5, np.float32)
    layers = Layers(world_normals(capture), paint, light, rest, paint, flat, flat * 0.2)
    return replace(capture, radiance=paint * light + rest, layers=layers)


def looking_down() -> np.ndarray:
    from dav2.scenes.capture import look_at

    return look_at(np.array([0.0, 0, 6]), np.array([0.3, 4.0, 0.0]))


def write_hypersim(root: Path, capture: Capture, frames: int = 1) -> None:
    for frame in range(frames):
        hypersim.write_frame(root, "ai_001_001", "cam_00", frame, capture)
    rows = [hypersim.Row("ai_001_001", "cam_00", frame, "train") for frame in range(frames)]
    hypersim.write_tables(root, {"ai_001_001": capture.camera}, rows)


def read_all(root: Path, **options: object) -> list[Frame]:
    source = open_source("hypersim", root, "h", {"layers": ALL, **options})
    return [source.read(item) for item in source.index()]


def layer_file(root: Path, kind: str, name: str) -> Path:
    return root / f"ai_001_001/images/scene_cam_00_{kind}_hdf5/frame.0000.{name}.hdf5"


@pytest.mark.parametrize("tilt", [(0.0, 0.0), (8.0, -5.0)])
def test_hypersims_layers_come_back_with_normals_in_camera_axes(tmp_path: Path, tilt: tuple[float, float]) -> None:
    capture = taken_apart(pose=looking_down(), tilt=rotation(*tilt))
    write_hypersim(tmp_path, capture)
    (frame,) = read_all(tmp_path)
    assert np.allclose(frame.normals, capture.camera_normals(), atol=2e-3)
    ground = frame.normals[capture.shape == 1]
    down = capture.camera.to_world[:3, :3].T @ [0, 0, 1]
    assert np.allclose(ground, down * [1, -1, -1], atol=2e-3), "x right, y up, z to the viewer"
    assert (ground[:, 1] > 0.5).all() and (ground[:, 2] > 0).all(), "the ground faces up, and the viewer"
    assert np.allclose(frame.albedo, capture.layers.albedo, atol=5e-4)
    assert np.allclose(frame.shading, capture.layers.shading, rtol=1e-3)
    assert np.allclose(frame.residual, capture.layers.residual, atol=2e-4)


def test_a_frame_is_what_it_was_where_no_layer_is_asked_for(tmp_path: Path) -> None:
    write_hypersim(tmp_path, taken_apart(pose=looking_down()))
    (frame,) = read_all(tmp_path, layers=[])
    assert not frame.layers
    (other,) = read_all(tmp_path)
    assert np.array_equal(frame.rgb, other.rgb) and np.array_equal(frame.depth, other.depth, equal_nan=True)


def spoil(root: Path, kind: str, name: str, change: Callable[[np.ndarray], None]) -> None:
    import h5py

    path = layer_file(root, kind, name)
    with h5py.File(path) as file:
        values = file["dataset"][:]
    change(values)
    hypersim.write_hdf5(path, values)


def put(value: float) -> Callable[[np.ndarray], None]:
    def change(values: np.ndarray) -> None:
        values[5:8, 5:9] = value

    return change


@pytest.mark.parametrize(
    ("kind", "name", "value", "layer", "words"),
    [
        ("geometry", "normal_cam", 0.0, "normals", "length 0 or not finite"),
        ("geometry", "normal_cam", np.nan, "normals", "length 0 or not finite"),
        ("final", "diffuse_reflectance", 1.5, "albedo", "albedo outside"),
        ("final", "diffuse_reflectance", -0.5, "albedo", "albedo outside"),
        ("final", "diffuse_illumination", -1.0, "shading", "shading negative"),
        ("final", "diffuse_illumination", np.inf, "shading", "shading negative or not finite"),
        ("final", "residual", np.nan, "residual", "residual negative or not finite"),
        ("geometry", "render_entity_id", -1, "albedo", "belong to no entity"),
    ],
)
def test_bad_pixels_are_refused_as_published_or_masked(
    tmp_path: Path, kind: str, name: str, value: float, layer: str, words: str
) -> None:
    capture = taken_apart(pose=looking_down())
    write_hypersim(tmp_path, capture)
    spoil(tmp_path, kind, name, put(value))
    with pytest.raises(FrameError, match=words):
        read_all(tmp_path)
    (frame,) = read_all(tmp_path, bad_layers="mask")
    expected = np.zeros(capture.depth.shape, bool)
    expected[5:8, 5:9] = True
    assert np.array_equal(np.isnan(frame.layers[layer]).any(-1), expected)


def test_normals_that_face_away_are_turned_over() -> None:
    rays = pinhole_rays(40, 40, 16, 12, 24, 32)
    facing = np.broadcast_to(np.array([0.0, 0.6, 0.8]), rays.shape).copy()
    away = facing.copy()
    away[3:9, 4:11] *= -3
    assert np.allclose(clean_normals(away, rays, "published", "n"), facing, atol=1e-6)
    assert np.allclose(clean_normals(away, None, "published", "n")[4, 5], [0, -0.6, -0.8], atol=1e-6)


def test_empty_masks_and_layers_without_one_sound_pixel_are_refused() -> None:
    nothing, values = np.zeros((8, 9), bool), np.full((8, 9, 3), 0.5)
    with pytest.raises(FrameError, match="its mask is empty"):
        clean_share(values, nothing, "mask", "a.exr", "albedo")
    with pytest.raises(FrameError, match=r"negative or not finite at 100\.00% of the pixels"):
        clean_light(-values, None, "mask", "s.exr", "shading")
    with pytest.raises(FrameError, match="length 0"):
        clean_normals(values * 0, None, "mask", "n.exr")


def test_a_frame_whose_parts_do_not_add_up_is_refused_but_for_the_test_split(tmp_path: Path) -> None:
    capture = taken_apart(pose=looking_down())
    write_hypersim(tmp_path, replace(capture, radiance=capture.radiance * np.linspace(1, 1.3, 64)[:, None]))
    with pytest.raises(FrameError, match=r"is the image to \d\d\.\d dB only, not 40"):
        read_all(tmp_path)
    hypersim.write_tables(tmp_path, {"ai_001_001": capture.camera}, [hypersim.Row("ai_001_001", "cam_00", 0, "test")])
    assert read_all(tmp_path)


def test_missing_and_bad_layers_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_hypersim(raw, taken_apart(pose=looking_down()), frames=3)
    spoil(raw, "final", "diffuse_reflectance", put(2.0))
    layer_file(raw, "final", "residual").with_name("frame.0001.residual.hdf5").unlink()
    source = SourceParams(reader="hypersim", path=str(raw), group="synthetic", options={"layers": ALL})
    summary = ingest("h", source, ingestion(), out)
    assert (summary.indexed, summary.quarantined) == (3, 2)
    reasons = read_quarantine(out).sort_values("key")["reason"].tolist()
    assert "albedo outside [0, 1]" in reasons[0] and "residual.hdf5 is not there" in reasons[1]
    assert (read_manifest(out)["size_residual"] > 0).tolist() == [True]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered")
    make(root, 0, "tiny", ["hypersim_layers", "interiorverse"], workers=1)
    return root


def test_rendered_truth_adds_up_to_the_picture_through_reader_and_shards(rendered: Path, tmp_path: Path) -> None:
    """PSNR of albedo · shading + residual ≥ 45 dB, both tone-mapped."""
    options = {"layers": ALL}
    source = SourceParams(reader="hypersim", path=str(rendered / "hypersim_layers"), group="synthetic", options=options)
    summary = ingest("h", source, ingestion(), tmp_path)
    assert (summary.frames, summary.quarantined) == (2, 0)
    opened = open_source("hypersim", rendered / "hypersim_layers", "h", options)
    items = {item.key: item for item in opened.index()}
    for row in read_manifest(tmp_path).to_dict("records"):
        frame = read_frame(tmp_path, row)
        image = opened._array(items[row["key"]].extra["layers"]["image"]).astype(np.float32)  # type: ignore[attr-defined]
        made = frame.albedo * frame.shading + frame.residual
        scale = 0.8**2.2 / np.quantile(image @ np.array([0.3, 0.59, 0.11]), 0.9)
        shown = [np.clip(scale * each, 0, 1) ** (1 / 2.2) for each in (image, made)]
        assert -10 * np.log10(np.mean((shown[0] - shown[1]) ** 2)) >= 45
        assert recomposition_psnr(image, frame.albedo, frame.shading, frame.residual) >= 40


def test_rendered_normals_are_those_of_the_rendered_depth(rendered: Path) -> None:
    source = open_source("hypersim", rendered / "hypersim_layers", "h", {"layers": ["normals"]})
    for item in source.index():
        frame = source.read(item)
        fitted = normals_from_depth(frame.depth, frame.intrinsics)
        cosine = np.einsum("hwc,hwc->hw", fitted, frame.normals)[~np.isnan(fitted[..., 0])]
        assert cosine.size > 0.5 * frame.depth.size
        assert np.degrees(np.arccos(np.median(cosine).clip(-1, 1))) < 3


def test_interiorverse_is_read_as_its_authors_describe_it(rendered: Path, tmp_path: Path) -> None:
    frames = check_reader(lambda: open_source("interiorverse", rendered / "interiorverse", "iv"))
    assert len(frames) == 2 and all(len(frame.layers) == 4 for frame in frames)
    capture = taken_apart(fov=85, pose=looking_down())
    interiorverse.write_frame(tmp_path, "room", 0, capture)
    interiorverse.write_lists(tmp_path, {"train": [], "val": ["room"], "test": []})
    source = open_source("interiorverse", tmp_path, "iv")
    (item,) = source.index()
    frame = source.read(item)
    assert item.split == "val" and frame.intrinsics.fx == pytest.approx(capture.camera.fx)
    assert np.allclose(frame.depth, capture.depth, rtol=1e-5)
    assert np.allclose(frame.normals, capture.camera_normals(), atol=2e-3)
    assert np.allclose(frame.albedo, capture.layers.base, atol=5e-4)
    assert np.allclose(frame.roughness, 0.5, atol=1e-3) and np.allclose(frame.metallicity, 0.1, atol=1e-3)
    holes = np.ones((48, 64), np.float16)
    holes[:4] = 0
    files.write_exr(tmp_path / "dataset_85/room/000_mask.exr", dict.fromkeys("RGB", holes))
    masked = source.read(item)
    for values in (masked.depth[..., None], masked.normals, masked.albedo, masked.roughness[..., None]):
        assert np.isnan(values[:4]).all() and not np.isnan(values[4:]).any()
    files.write_exr(tmp_path / "dataset_85/room/000_mask.exr", {"Y": holes * 0})
    with pytest.raises(FrameError):
        source.read(item)


def test_a_look_at_a_set_and_its_manifest_counts_its_layers(rendered: Path, tmp_path: Path) -> None:
    settings, raw = tmp_path / "params.yaml", rendered / "interiorverse"
    run = CliRunner(env={"COLUMNS": "200"})
    checked = run.invoke(build("data"), ["data", "check", "interiorverse", str(raw)])
    expected = "layers: normals 2, albedo 2, roughness 2, metallicity 2"
    assert checked.exit_code == 0 and expected in checked.output, checked.output
    params = load(Path(__file__).parents[3] / "params.yaml").model_dump(mode="json", by_alias=True)
    params["benchmarks"]["kitti"] |= {"reader": "interiorverse", "path": str(raw)}
    settings.write_text(yaml.safe_dump(params))
    with chdir(tmp_path):
        for command in ("ingest", "stats"):
            result = run.invoke(build("data"), ["data", command, "kitti", "--params", str(settings)])
            assert result.exit_code == 0, result.output
    assert expected in result.output


def test_published_normals_are_read_in_both_forms_with_their_axes(tmp_path: Path) -> None:
    capture = taken_apart(pose=looking_down())
    normals = capture.camera_normals()
    normals[:3] = 0
    dsine, marigold = tmp_path / "dsine/scene0019_00", tmp_path / "marigold/scene0019_00"
    for folder in (dsine, marigold):
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "000000_img.png"), capture.rgb[..., ::-1])
    left = normals * [-1, 1, 1]
    coded = np.where(np.abs(normals).sum(-1, keepdims=True) > 0, np.rint((left + 1) / 2 * 255), 0).astype(np.uint8)
    cv2.imwrite(str(dsine / "000000_normal.png"), coded[..., ::-1])
    np.save(dsine / "000000_intrins.npy", np.array([[50.0, 0, 32], [0, 51, 24], [0, 0, 1]]))
    np.save(marigold / "000000_normal.npy", normals)
    for root, tolerance in ((dsine.parent, 0.012), (marigold.parent, 1e-6)):
        (frame,) = check_reader(lambda root=root: open_source("normals", root, "n"))
        assert frame.depth is None
        assert np.isnan(frame.normals[:3]).all()
        assert np.allclose(frame.normals[3:], normals[3:], atol=tolerance)
    assert open_source("normals", dsine.parent, "n").index()[0].split == "test"
    (dsine / "000000_normal.png").rename(dsine / "000000_normal.pkl")
    refused = [item for item in open_source("normals", tmp_path, "n").index() if "refused" in item.extra]
    assert [item.paths[0].rpartition("/")[2] for item in refused] == ["000000_img.png"], "pickles are never read"


def test_normals_of_planes_are_exact_at_any_slant_and_edges_are_unknown() -> None:
    capture = analytic.capture(shapes=BALL, pose=looking_down())
    camera = Intrinsics(capture.camera.fx, capture.camera.fy, capture.camera.cx, capture.camera.cy)
    truth = replace(capture, layers=Layers(world_normals(capture), *[None] * 6)).camera_normals()  # type: ignore[list-item]
    for method, on_the_ball in (("plane", 8.0), ("gradient", 5.0)):
        found = normals_from_depth(capture.depth, camera, method)  # type: ignore[arg-type]
        known = ~np.isnan(found[..., 0])
        angle = np.degrees(2 * np.arcsin(np.linalg.norm(found - truth, axis=-1) / 2))
        inside = cv2.erode((capture.shape == 1).astype(np.uint8), np.ones((5, 5))) > 0
        assert known[inside].all() and angle[inside].max() < 0.01
        assert np.nanmedian(angle[capture.shape == 0]) < on_the_ball
        assert np.allclose(np.linalg.norm(found[known], axis=-1), 1, atol=1e-5)
    tilted = np.broadcast_to(np.linspace(1, 8, 64), (48, 64)) ** -1
    steep = normals_from_depth(tilted.astype(np.float32) * 10, camera)
    assert not np.isnan(steep[4:-4, 4:-4]).any(), "a steep wall is a surface, not an edge"


def test_normals_follow_neither_sky_nor_jumps() -> None:
    camera = Intrinsics(400.0, 400.0, 32.0, 24.0)
    depth = np.full((48, 64), 2.0, np.float32)
    depth[:, 32:] = 3.0
    depth[:10], depth[40:] = np.inf, np.nan
    found = normals_from_depth(depth, camera)
    assert np.isnan(found[:10]).all() and np.isnan(found[40:]).all()
    known = found[~np.isnan(found[..., 0])]
    assert np.allclose(known, [0, 0, 1], atol=1e-4), "no normal mixes the two walls"
    assert len(known) > 0.9 * 30 * 64
    noise = np.random.default_rng(0).normal(1, 0.1, depth.shape).astype(np.float32)
    assert np.isnan(normals_from_depth(depth * noise, camera)).mean() > 0.9


def test_any_reader_computes_normals_where_it_is_asked_to(tmp_path: Path) -> None:
    write_hypersim(tmp_path, taken_apart(pose=looking_down()))
    (frame,) = read_all(tmp_path, layers=[], normals_from_depth="plane")
    known = ~np.isnan(frame.normals[..., 0])
    assert known.mean() > 0.5 and set(frame.layers) == {"normals"}
    (own,) = read_all(tmp_path, normals_from_depth="plane")
    assert not np.isnan(own.normals).any(), "normals of the set's own are not replaced"
