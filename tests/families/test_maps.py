"""Maps that are there already label the photographs they are named like; what is missing or changed is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dav2 import layout
from dav2.data.frame import FrameError
from dav2.data.store.manifest import read_table
from dav2.families.directory import WeightsError
from dav2.families.outside import take_in
from dav2.params import OutsideParams
from dav2.pseudo_label import LabelError, Labeller, LabelOptions, finish, plan_shards
from dav2.pseudo_label.gallery import read_label
from dav2.pseudo_label.teacher import Teacher, unlabelled
from tests.pseudo_label.conftest import write_shards

OPTIONS = LabelOptions(input_size=56, precision="fp32", batch=3)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("photographs"), shards=2, frames=4)


def keys(photographs: Path) -> list[str]:
    return [str(key) for key in read_table(str(photographs), ["key"])["key"].to_pylist()]


def made(key: str, shape: tuple[int, int] = (90, 120)) -> NDArray[np.float32]:
    values = np.random.default_rng(abs(hash(key)) % 2**32).uniform(1, 5, (9, 12)).astype(np.float32)
    return np.asarray(cv2.resize(values, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def write_maps(folder: Path, names: list[str], kind: str = "npy", ending: str = "") -> dict[str, NDArray[np.float32]]:
    """A map for each photograph, in the folders of its source or not, in the kind of file that is asked for."""
    maps = {}
    for name in names:
        path = folder / f"{name}{ending}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        maps[name] = made(name)
        if kind == "npy":
            np.save(path, maps[name])
        elif kind == "png":
            Image.fromarray((maps[name] * 1000).astype(np.uint16)).save(path)
        else:
            Image.fromarray(maps[name]).save(path)
    return maps


def outside(folder: Path, **values: Any) -> OutsideParams:
    return OutsideParams.model_validate({"maps": str(folder), "quantity": "disparity", **values})


def label(photographs: Path, root: Path, options: LabelOptions = OPTIONS) -> Path:
    out = root / "labels"
    teacher = Teacher.open(str(layout.outside(root, "theirs")), options)
    for task in plan_shards(str(photographs), str(out), teacher.digest, options):
        Labeller(teacher).label(task)
    finish(str(out))
    return out


@pytest.mark.parametrize("kind", ["npy", "png", "tiff"])
@pytest.mark.parametrize(("with_source", "ending"), [(True, ""), (False, "_depth"), (False, ".jpg")])
def test_labels_are_the_maps_of_the_photographs(
    photographs: Path, tmp_path: Path, kind: str, with_source: bool, ending: str
) -> None:
    names = [key if with_source else key.partition("/")[2] for key in keys(photographs)]
    maps = write_maps(tmp_path / "maps", names, kind, ending)
    take_in("theirs", outside(tmp_path / "maps", licence="MIT"), tmp_path)
    out = label(photographs, tmp_path)
    for row in read_table(
        str(out), ["key", "shard", "offset_label", "size_label", "vmin", "vmax", "bits", "codec"]
    ).to_pylist():
        got = read_label(str(out), row)
        expected = maps[row["key"] if with_source else row["key"].partition("/")[2]] * (1000 if kind == "png" else 1)
        expected = cv2.resize(expected, got.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(got - expected).max() < 2e-4 * expected.max() + (1 if kind == "png" else 0)


def test_metres_become_disparity_and_what_is_infinitely_far_has_none(photographs: Path, tmp_path: Path) -> None:
    for key in keys(photographs):
        path = tmp_path / "maps" / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate([np.full((40, 120), np.inf), np.full((40, 120), 4.0)]).astype(np.float32))
    take_in("theirs", outside(tmp_path / "maps", quantity="metres"), tmp_path)
    out = label(photographs, tmp_path)
    columns = ["shard", "offset_label", "size_label", "vmin", "vmax", "bits", "codec"]
    got = read_label(str(out), read_table(str(out), columns).to_pylist()[0])
    assert (got[0, 0], got[-1, 0]) == (pytest.approx(0), pytest.approx(0.25))


def test_photographs_without_a_map_are_told_before_the_first_label(photographs: Path, tmp_path: Path) -> None:
    there = keys(photographs)
    write_maps(tmp_path / "maps", there[::2])
    take_in("theirs", outside(tmp_path / "maps"), tmp_path)
    assert unlabelled(str(layout.outside(tmp_path, "theirs")), [str(photographs)]) == there[1::2]
    with pytest.raises(LabelError, match=r"photos/scene_\d/view_\d+: no map of it in .*maps; expected"):
        label(photographs, tmp_path)


def test_a_map_that_changed_or_has_gaps_is_named(photographs: Path, tmp_path: Path) -> None:
    there = keys(photographs)
    write_maps(tmp_path / "maps", there)
    first = tmp_path / "maps" / f"{there[0]}.npy"
    before = take_in("theirs", outside(tmp_path / "maps"), tmp_path).weights_sha256
    np.save(first, made("another"))
    with pytest.raises(LabelError, match="is not the map that was taken in; 'dvc repro' takes in those of now"):
        label(photographs, tmp_path)
    values = made(there[0])
    values[3, 4] = np.nan
    np.save(first, values)
    assert take_in("theirs", outside(tmp_path / "maps"), tmp_path).weights_sha256 != before
    with pytest.raises(LabelError, match="1 pixels without a number that a label could take"):
        label(photographs, tmp_path)


def test_what_cannot_be_a_folder_of_maps_is_named(tmp_path: Path) -> None:
    for make, said in (
        (lambda folder: None, "is no folder of maps"),
        (lambda folder: folder.mkdir(), "holds no maps"),
        (
            lambda folder: (np.save(folder / "a.npy", made("a")), np.savez(folder / "A.npz", made("a"))),
            "would both be the",
        ),
    ):
        make(tmp_path / "maps")
        with pytest.raises(WeightsError, match=said):
            take_in("theirs", outside(tmp_path / "maps"), tmp_path)


@pytest.mark.parametrize("asked", [{"flip_agreement": True}, {"scale_agreement": True}, {"embedding": True}])
def test_what_only_a_network_can_do_is_refused(photographs: Path, tmp_path: Path, asked: dict[str, bool]) -> None:
    write_maps(tmp_path / "maps", keys(photographs))
    take_in("theirs", outside(tmp_path / "maps"), tmp_path)
    options = LabelOptions(input_size=56, precision="fp32", **asked)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=r"set pseudo_label\.(flip_agreement|embedding)"):
        Teacher.open(str(layout.outside(tmp_path, "theirs")), options)


def test_maps_are_no_model_for_anything_else(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", ["a/b"])
    take_in("theirs", outside(tmp_path / "maps"), tmp_path)
    with pytest.raises(FrameError, match="no map of it"):
        from dav2.families.loading import load_directory

        load_directory(layout.outside(tmp_path, "theirs")).read("photos/c")
