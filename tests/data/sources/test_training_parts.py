"""What metric models are trained on of NYU Depth V2 and KITTI is never a frame of the test, and trains."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from dav2 import families
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.testing import check_reader
from dav2.data.store.ingest import ingest
from dav2.params import IngestParams, Params, SourceParams
from dav2.training.recipes import build_recipe
from tests.training.world import COMMON, make_project, settings

ROOM = np.linspace(800, 6000, 60)[:, None] * np.ones((1, 80))


def write_pair(folder: Path, number: int, rgb: str, depth: str) -> None:
    """A photograph, and its depth in millimetres with holes."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(picture).save(folder / rgb.format(number))
    stored = (ROOM * (1 + number / 50)).astype(np.uint16)
    stored[::3] = 0
    Image.fromarray(stored).save(folder / depth.format(number))


def test_nyus_synchronised_frames_are_trained_on_and_its_test_is_not(tmp_path: Path) -> None:
    for scene in ("basement_0001a", "study_0002"):
        write_pair(tmp_path / "sync" / scene, 1, "rgb_{:05d}.jpg", "sync_depth_{:05d}.png")
    write_pair(tmp_path / "official_splits/test/bathroom", 45, "rgb_{:05d}.jpg", "sync_depth_{:05d}.png")
    train = check_reader(lambda: open_source("nyu", tmp_path, "nyu", {"part": "train"}))
    assert [frame.key for frame in train] == ["nyu/basement_0001a/00001", "nyu/study_0002/00001"]
    assert {item.split for item in open_source("nyu", tmp_path, "nyu", {"part": "train"}).index()} == {""}
    (test,) = open_source("nyu", tmp_path, "nyu").index()
    assert (test.key, test.split) == ("nyu/bathroom/00045", "test")
    depth = train[0].depth
    assert depth is not None
    known = ~np.isnan(depth)
    assert known.mean() == pytest.approx(2 / 3, abs=0.02)
    np.testing.assert_allclose(depth[known], (ROOM * 1.02 / 1000)[known], atol=1.1e-3)


def test_nyus_labelled_images_are_divided_by_its_own_list(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = random.integers(0, 256, (4, 3, 64, 48), dtype=np.uint8)
        file["rawDepths"] = file["depths"] = random.uniform(1, 9, (4, 64, 48)).astype(np.float32)
    savemat(tmp_path / "splits.mat", {"trainNdxs": [[2], [4]], "testNdxs": [[1], [3]]})
    parts = {
        part: [item.key for item in open_source("nyu", tmp_path, "nyu", {"part": part}).index()]
        for part in ("train", "test")
    }
    assert parts == {
        "train": ["nyu/labeled/0002", "nyu/labeled/0004"],
        "test": ["nyu/labeled/0001", "nyu/labeled/0003"],
    }


def lidar(seed: int) -> NDArray[np.uint16]:
    """Metres × 256 at one pixel in twenty."""
    hit = np.random.default_rng(seed).random((60, 80)) < 0.05
    return np.where(hit, ROOM / 1000 * 256 * 4, 0).astype(np.uint16)


def write_drive(root: Path, drive: str, frames: range) -> None:
    for number in frames:
        name = f"{number:010d}.png"
        image = root / f"2011_09_26/{drive}_sync/image_02/data/{name}"
        depth = root / f"data_depth_annotated/train/{drive}_sync/proj_depth/groundtruth/image_02/{name}"
        for path in (image, depth):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)).save(image)
        Image.fromarray(lidar(number)).save(depth)


def test_kittis_training_frames_are_those_of_a_list_or_of_drives_without_a_test_frame(tmp_path: Path) -> None:
    one, two = "2011_09_26_drive_0001", "2011_09_26_drive_0002"
    write_drive(tmp_path, one, range(4))
    write_drive(tmp_path, two, range(4))
    with pytest.raises(SourceError, match=r"part: train needs a list of training frames \(option 'list'"):
        open_source("kitti", tmp_path, "kitti", {"part": "train"}).index()
    (tmp_path / "eigen_test_files_with_gt.txt").write_text(
        f"2011_09_26/{two}_sync/image_02/data/0000000002.png None 721.5\n"
    )
    frames = check_reader(lambda: open_source("kitti", tmp_path, "kitti", {"part": "train"}))
    assert {frame.key.split("/")[1] for frame in frames} == {one}
    depth = frames[0].depth
    assert depth is not None
    assert np.isfinite(depth).mean() == pytest.approx(0.05, abs=0.02)
    (tmp_path / "eigen_train_files_with_gt.txt").write_text(
        f"2011_09_26/{one}_sync/image_02/data/0000000003.png x 721.5\n"
    )
    (item,) = open_source("kitti", tmp_path, "kitti", {"part": "train"}).index()
    assert item.key.endswith("0000000003") and item.split == ""


def test_a_metric_model_learns_from_sparse_real_depth_and_a_teacher_does_not(tmp_path: Path) -> None:
    make_project(tmp_path)
    write_drive(tmp_path / "data/kitti", "2011_09_26_drive_0001", range(12))
    (tmp_path / "data/kitti/train.txt").write_text(
        "".join(f"2011_09_26/2011_09_26_drive_0001_sync/image_02/data/{n:010d}.png x 1\n" for n in range(12))
    )
    source = {"reader": "kitti", "path": str(tmp_path / "data/kitti"), "group": "real", "options": {"part": "train"}}
    ingest("road", SourceParams.model_validate(source), IngestParams(), tmp_path / "artifacts/shards/real/road")
    tree = settings(sources={"road": source})
    tree["metric"]["near"] |= {"start": "random", "sources": ["road"], "max_depth": 80.0}
    family = families.get("depth_anything")
    recipe = build_recipe(Params.model_validate(tree), "metric-near", tmp_path, family)
    batch = recipe.data(0, 1, 0).batch(0)
    # Nothing is made up between the rays: what is not hit is left out, what is hit keeps its metres.
    share = float(batch["mask"].float().mean())
    assert 0.01 < share < 0.12
    metres = batch["target"][batch["mask"]]
    assert (metres > 3).all() and (metres < 25).all()
    task = recipe.task()
    loss = task(**{name: batch[name] for name in ("image", "target", "mask", "region")})["loss"]
    loss.backward()
    assert np.isfinite(float(loss))
    with pytest.raises(ValueError, match=r"teacher\.sources: 'road' is real; the teacher learns from synthetic images"):
        Params.model_validate({**tree, "teacher": {**COMMON, "sources": ["road"]}})
