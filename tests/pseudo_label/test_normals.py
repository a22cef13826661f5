"""Labels of normals: stored as a frame's normals are, measured, drawn, and learnt from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from dav2.data.feed.loader import Part, TrainingData
from dav2.data.images import decode
from dav2.data.store.labels import decode_label, picture
from dav2.data.store.manifest import ManifestError, read_manifest
from dav2.data.store.packing import CodecError
from dav2.families.depth_anything.family import DepthAnythingFamily
from dav2.families.depth_anything.model import DepthAnything, build
from dav2.families.depth_anything.preprocess import preprocess
from dav2.maps import Quantity
from dav2.params import AugmentParams
from dav2.pseudo_label import LabelError, Labeller, columns, finish, plan_shards
from dav2.pseudo_label.gallery import read_label, write_gallery
from dav2.pseudo_label.sense import warning
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS, write_shards

FULL = replace(OPTIONS, flip_agreement=True, scale_agreement=True, embedding=True)


def leaning_model() -> DepthAnything:
    """Random weights whose normals differ from pixel to pixel."""
    torch.manual_seed(0)
    model = build("vitn", target=Quantity.NORMALS)
    with torch.no_grad():
        model.decoder.head3.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Teacher]:
    """Photographs, their labels, and the teacher that made them."""
    folder = tmp_path_factory.mktemp("normals")
    source, out = write_shards(folder / "shards", shards=1, frames=5), folder / "labels"
    teaching = DepthAnythingFamily().teaching(leaning_model(), "fp32", torch.device("cpu"))
    teacher = Teacher(teaching, "d" * 64, FULL)
    for task in plan_shards(str(source), str(out), teacher.digest, FULL):
        Labeller(teacher).label(task)
    assert finish(str(out)).labels == 5
    return source, out, teacher


def test_every_label_is_what_the_teacher_says_in_sixteen_bits(labelled: tuple[Path, Path, Teacher]) -> None:
    source, out, _ = labelled
    manifest, shard = read_manifest(source).set_index("key"), (source / "train-000000.tar").read_bytes()
    model = leaning_model().eval()
    for row in pd.read_parquet(out / "manifest.parquet").to_dict("records"):
        place = manifest.loc[row["key"]]
        rgb = decode(shard[place.offset_image : place.offset_image + place.size_image], "").rgb
        planes = torch.from_numpy(preprocess(rgb, 56))[None]
        with torch.inference_mode():
            expected, turned = model(planes)[0], model(planes.flip(-1))[0].flip(-1)
        mirrored = turned * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
        label = read_label(str(out), row)
        assert row["codec"] == "normals" and row["bits"] == 16 and np.isnan([row["vmin"], row["saturated"]]).all()
        assert label.shape == (row["height"], row["width"], 3) == (*expected.shape[1:], 3)
        assert np.abs(label - expected.permute(1, 2, 0).numpy()).max() < 2e-4
        assert row["flip_agreement"] == pytest.approx(float((expected * mirrored).sum(dim=0).mean()), abs=1e-4)
        assert -1 <= row["scale_agreement"] <= 1 and row["sharpness"] > 0 and 0 < row["range"] < 1
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-4)


def test_labels_are_drawn_and_nobody_asks_what_is_near_in_them(
    labelled: tuple[Path, Path, Teacher], tmp_path: Path
) -> None:
    source, out, _ = labelled
    sheet = cv2.imread(str(write_gallery(str(source), str(out), tmp_path / "sheet.png")))
    assert sheet.ndim == 3 and sheet.std() > 10
    assert warning(str(out), "normals") is None
    facing = np.broadcast_to(np.array([0, 0, 1], np.float32), (4, 5, 3))
    assert (picture(facing) == (128, 128, 255)).all()


def test_a_student_is_fed_them_mirrored_rightly(labelled: tuple[Path, Path, Teacher]) -> None:
    source, out, _ = labelled
    plain, mirrored = (
        TrainingData(
            [Part(str(source), str(out), "train")],
            crop=56,
            batch=4,
            seed=0,
            layers=(Quantity.NORMALS,),
            augment=AugmentParams(flip=flip),
        ).batch(0)
        for flip in (0.0, 1.0)
    )
    assert plain["target"].shape == (4, 3, 56, 56) and (plain["target"].norm(dim=1) - 1).abs().max() < 1e-3
    turned = torch.tensor([-1.0, 1.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(mirrored["target"], plain["target"].flip(-1) * turned)
    with pytest.raises(ManifestError, match="its labels are not of depth but of normals"):
        TrainingData([Part(str(source), str(out), "train")], crop=56, batch=4, seed=0, augment=AugmentParams())


def test_what_can_be_said_of_normals() -> None:
    facing = np.broadcast_to(np.array([0, 0, 1], np.float32), (6, 8, 3))
    halves = facing.copy()
    halves[:, 4:] = (1, 0, 0)
    assert columns.spread(facing) == 0 and columns.spread(halves) == pytest.approx(1 - 0.5**0.5)
    assert columns.mean_cosine(facing, halves) == 0.5 and columns.mean_cosine(halves, halves) == 1
    grey = np.zeros((6, 8), np.float32)
    grey[:, 4:] = 200
    assert columns.edge_sharpness(halves, grey) > 2 and columns.edge_sharpness(facing, grey) == 0


def test_bytes_that_are_no_label_and_teachers_of_something_else_are_refused(
    labelled: tuple[Path, Path, Teacher],
) -> None:
    with pytest.raises(CodecError, match="of another format"):
        decode_label(b"nothing", "normals", 16, 0.0, 0.0)
    _, _, teacher = labelled
    teaching = DepthAnythingFamily().teaching(leaning_model(), "fp32", torch.device("cpu"))
    teaching.quantity = Quantity.ALBEDO
    with pytest.raises(LabelError, match="the teacher predicts albedo; labels say how far things are, or are normals"):
        Teacher(teaching, teacher.digest, OPTIONS)
