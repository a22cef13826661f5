"""One shard in, one label shard out."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dav2.data.images import decode
from dav2.data.store.depth_codec import decode_disparity
from dav2.data.store.manifest import read_manifest
from dav2.families.depth_anything.preprocess import preprocess
from dav2.pseudo_label import LabelError, Labeller, LabelOptions, ShardTask, finish, plan_shards
from dav2.pseudo_label.labeller import in_order
from dav2.pseudo_label.receipts import receipt_name
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS, write_shards

Open = Callable[[LabelOptions], Teacher]
FULL = replace(OPTIONS, flip_agreement=True, scale_agreement=True, embedding=True)


def first_task(source: Path, out: Path, teacher: Teacher) -> ShardTask:
    return plan_shards(str(source), str(out), teacher.digest, teacher.options)[0]


def test_every_label_is_what_the_teacher_says_of_that_photograph_alone(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    teacher, out = open_teacher(FULL), tmp_path / "out"
    Labeller(teacher).label(first_task(source, out, teacher))
    rows = pd.read_parquet(out / "train-000000.parquet")
    manifest = read_manifest(source).set_index("key")
    tar = (out / "train-000000.tar").read_bytes()
    shard = (source / "train-000000.tar").read_bytes()
    assert list(rows["key"]) == list(manifest.index[:7])
    for row in rows.to_dict("records"):
        photo = manifest.loc[row["key"]]
        rgb = decode(shard[photo.offset_image : photo.offset_image + photo.size_image], "").rgb
        planes = torch.from_numpy(preprocess(rgb, 56))[None]
        with torch.no_grad():
            expected = teacher.teaching.model(planes)[0].numpy()
            mirrored = teacher.teaching.model(planes.flip(-1)).flip(-1)[0].numpy()
        meta = {"min": row["vmin"], "max": row["vmax"], "bits": row["bits"], "codec": row["codec"]}
        label = decode_disparity(tar[row["offset_label"] : row["offset_label"] + row["size_label"]], meta)
        assert label.shape == expected.shape == (row["height"], row["width"])
        step = (row["vmax"] - row["vmin"]) / (2**16 - 1)
        np.testing.assert_allclose(label, expected, atol=step + 1e-5 * expected.max())
        assert row["flip_agreement"] == pytest.approx(np.corrcoef(expected.ravel(), mirrored.ravel())[0, 1], abs=1e-3)
        assert row["image_sha256"] == photo.sha256
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-4)


def test_the_label_shard_explains_itself_to_any_tar_reader(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher = open_teacher(OPTIONS)
    receipt = Labeller(teacher).label(first_task(source, tmp_path / "out", teacher))
    with tarfile.open(tmp_path / "out" / receipt.shard) as archive:
        members = archive.getnames()
        description = json.load(archive.extractfile(members[1]))  # type: ignore[arg-type]
    keys = [name.removesuffix(".disp.png") for name in members[::2]]
    assert members[1::2] == [f"{key}.json" for key in keys]
    assert description["key"] == keys[0]
    assert description["teacher"] == teacher.digest


@pytest.mark.parametrize("codec", ["jpegls12", "jxl12"])
def test_twelve_bit_labels_err_by_at_most_half_a_step(
    codec: str, source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    for name, options in (("fine", OPTIONS), ("coarse", replace(OPTIONS, codec=codec, bits=12))):
        teacher = open_teacher(options)
        Labeller(teacher).label(first_task(source, tmp_path / name, teacher))
        finish(str(tmp_path / name))
    from dav2.pseudo_label.gallery import read_label

    fine = pd.read_parquet(tmp_path / "fine" / "manifest.parquet")
    coarse = pd.read_parquet(tmp_path / "coarse" / "manifest.parquet")
    for (_, a), (_, b) in zip(fine.iterrows(), coarse.iterrows(), strict=True):
        error = np.abs(read_label(str(tmp_path / "fine"), a) - read_label(str(tmp_path / "coarse"), b)).max()
        half_steps = 0.5 / (2**12 - 1) + 0.5 / (2**16 - 1)
        rounding = 4 * np.finfo(np.float32).eps * a["vmax"]
        assert error <= half_steps * (a["vmax"] - a["vmin"]) + rounding


def test_bytes_do_not_depend_on_threads_or_on_which_run_made_them(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    written = []
    for threads in (1, 4):
        teacher, out = open_teacher(FULL), tmp_path / f"out{threads}"
        receipt = Labeller(teacher, threads=threads).label(first_task(source, out, teacher))
        written.append((receipt, (out / receipt.shard).read_bytes(), (out / "train-000000.parquet").read_bytes()))
    assert written[0] == written[1]


def test_a_damaged_photograph_is_named_and_leaves_nothing_behind(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    teacher, out = open_teacher(OPTIONS), tmp_path / "out"
    row = read_manifest(source).iloc[4]
    with (source / row.shard).open("r+b") as file:
        file.seek(row.offset_image + row.size_image // 2)
        file.write(b"\xff\x00\xff\x00")
    with pytest.raises(LabelError, match=row.key):
        Labeller(teacher).label(first_task(source, out, teacher))
    assert list(out.iterdir()) == []


def test_a_cut_off_shard_is_refused(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher = open_teacher(OPTIONS)
    path = source / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(LabelError, match=r"train-000000\.tar"):
        Labeller(teacher).label(first_task(source, tmp_path / "out", teacher))


def test_a_label_that_is_not_finite_is_refused(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher = open_teacher(OPTIONS)
    with torch.no_grad():
        next(teacher.teaching.model.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(LabelError, match="not finite"):
        Labeller(teacher).label(first_task(source, tmp_path / "out", teacher))


def test_a_teacher_other_than_the_planned_one_is_refused(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher = open_teacher(OPTIONS)
    task = replace(first_task(source, tmp_path / "out", teacher), teacher="0" * 64)
    with pytest.raises(LabelError, match="planned for teacher 000000000000"):
        Labeller(teacher).label(task)


def test_the_second_to_finish_a_task_finds_the_first_ones_receipt(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    teacher, out = open_teacher(OPTIONS), tmp_path / "out"
    task = first_task(source, out, teacher)
    first = Labeller(teacher).label(task)
    before = (out / task.shard).stat().st_ino
    assert Labeller(teacher).label(task) == first
    assert (out / task.shard).stat().st_ino == before


def test_two_workers_whose_labels_differ_are_reported(
    source: Path, tmp_path: Path, open_teacher: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dav2.pseudo_label import labeller

    teacher, out = open_teacher(OPTIONS), tmp_path / "out"
    task = first_task(source, out, teacher)
    receipt = Labeller(teacher).label(task)
    other = receipt.model_copy(update={"label_sha256": "0" * 64})
    (out / receipt_name(task.shard)).write_bytes(other.to_json())
    # The other one's receipt appears after this one has looked for it.
    looks = iter([None])
    monkeypatch.setattr(labeller, "read_receipt", lambda *a: next(looks, other))
    with pytest.raises(LabelError, match="finished it with different labels"):
        Labeller(teacher).label(task)
    assert not (out / receipt_name(task.shard)).exists(), "the next run decides"


def test_labels_come_in_the_order_of_the_shard() -> None:
    labels = [object() for _ in range(6)]
    shuffled = [(index, labels[index]) for index in (2, 0, 1, 5, 4, 3)]
    assert list(in_order(iter(shuffled))) == labels  # type: ignore[arg-type]


def test_the_manifest_has_one_row_for_each_photograph_and_finds_its_label(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    teacher, out = open_teacher(OPTIONS), str(tmp_path / "out")
    for task in plan_shards(str(source), out, teacher.digest, OPTIONS):
        Labeller(teacher).label(task)
    summary = finish(out)
    table = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert list(table["key"]) == list(read_manifest(source)["key"])
    assert (summary.shards, summary.labels) == (3, 21)
    assert summary.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    assert table["flip_agreement"].isna().all()


def test_rows_that_were_changed_by_hand_are_refused(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher, out = open_teacher(OPTIONS), tmp_path / "out"
    Labeller(teacher).label(first_task(source, out, teacher))
    table = pd.read_parquet(out / "train-000000.parquet")
    table["vmax"] *= 2
    table.to_parquet(out / "train-000000.parquet")
    with pytest.raises(LabelError, match="not what its receipt describes"):
        finish(str(out))


def test_an_empty_source_has_an_empty_manifest(tmp_path: Path, digest: str) -> None:
    write_shards(tmp_path / "shards", shards=0)
    out = str(tmp_path / "out")
    assert plan_shards(str(tmp_path / "shards"), out, digest, OPTIONS) == []
    assert finish(out).labels == 0
