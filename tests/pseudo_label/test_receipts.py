"""A shard with a valid receipt is left alone; a change makes exactly the affected shards stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dav2 import machine
from dav2.data import storage
from dav2.documents import LabelReceipt
from dav2.params import PseudoLabelParams
from dav2.pseudo_label import Labeller, LabelOptions, ShardTask, label_precision, plan_shards
from dav2.pseudo_label.receipts import read_receipt, receipt_name
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS, write_shards

Open = Callable[[LabelOptions], Teacher]
AUTO = PseudoLabelParams(sources=["photos"])


@pytest.fixture
def out(source: Path, tmp_path: Path, open_teacher: Open, digest: str) -> str:
    """All three shards of ``source``, labelled."""
    folder = str(tmp_path / "labels")
    labeller = Labeller(open_teacher(OPTIONS), threads=1)
    for task in plan_shards(str(source), folder, digest, OPTIONS):
        labeller.label(task)
    return folder


def names(tasks: list[ShardTask]) -> list[str]:
    return [task.shard for task in tasks]


ALL = ["train-000000.tar", "train-000001.tar", "train-000002.tar"]


def test_labelled_shards_are_not_planned_again(source: Path, out: str, digest: str) -> None:
    assert plan_shards(str(source), out, digest, OPTIONS) == []


@pytest.mark.parametrize(
    "change", [{"input_size": 70}, {"precision": "bf16"}, {"codec": "jxl12", "bits": 12}, {"flip_agreement": True}]
)
def test_an_option_that_shapes_labels_makes_every_shard_stale(
    change: dict[str, object], source: Path, out: str, digest: str
) -> None:
    assert names(plan_shards(str(source), out, digest, replace(OPTIONS, **change))) == ALL


def test_another_teacher_makes_every_shard_stale_and_takes_the_old_labels_away(source: Path, out: str) -> None:
    assert names(plan_shards(str(source), out, "f" * 64, OPTIONS)) == ALL
    assert list(Path(out).iterdir()) == []


def test_the_batch_size_makes_nothing_stale(source: Path, out: str, digest: str) -> None:
    assert plan_shards(str(source), out, digest, replace(OPTIONS, batch=5)) == []


def test_a_shard_with_other_photographs_is_the_only_one_done_again(source: Path, out: str, digest: str) -> None:
    write_shards(source, shards=4)
    assert names(plan_shards(str(source), out, digest, OPTIONS)) == ["train-000003.tar"]


def test_labels_of_a_shard_that_is_gone_are_removed(source: Path, out: str, digest: str) -> None:
    write_shards(source, shards=2)
    assert plan_shards(str(source), out, digest, OPTIONS) == []
    assert sorted(path.name for path in Path(out).glob("train-000002*")) == []


@pytest.mark.parametrize("damage", ["no tar", "short tar", "no rows", "no receipt", "half a receipt"])
def test_a_shard_that_lost_a_part_is_done_again(damage: str, source: Path, out: str, digest: str) -> None:
    tar, rows, receipt = (Path(out) / f"train-000001{end}" for end in (".tar", ".parquet", ".receipt.json"))
    if damage == "no tar":
        tar.unlink()
    elif damage == "short tar":
        tar.write_bytes(tar.read_bytes()[:-512])
    elif damage == "no rows":
        rows.unlink()
    elif damage == "no receipt":
        receipt.unlink()
    else:
        receipt.write_bytes(receipt.read_bytes()[:100])
    assert names(plan_shards(str(source), out, digest, OPTIONS)) == ["train-000001.tar"]


def test_a_receipt_says_which_teacher_which_pixels_and_which_bytes(source: Path, out: str, digest: str) -> None:
    import hashlib

    receipt = read_receipt(out, "train-000001.tar")
    assert receipt is not None
    assert receipt.teacher == digest
    assert receipt.images == hashlib.sha256((source / "train-000001.tar").read_bytes()).hexdigest()
    assert receipt.label_sha256 == hashlib.sha256((Path(out) / "train-000001.tar").read_bytes()).hexdigest()
    assert receipt.rows_sha256 == hashlib.sha256((Path(out) / "train-000001.parquet").read_bytes()).hexdigest()
    assert receipt.frames == 7
    assert receipt.run["seconds"] > 0


def test_a_receipt_survives_its_file_and_its_time_is_not_compared(out: str) -> None:
    receipt = read_receipt(out, "train-000000.tar")
    assert receipt is not None
    assert LabelReceipt.model_validate_json(receipt.to_json()) == receipt
    assert receipt.model_copy(update={"run": {}}) == receipt
    assert receipt.model_copy(update={"frames": 8}) != receipt
    storage.write(storage.join(out, "train-000000.receipt.json"), b"[]")
    assert read_receipt(out, "train-000000.tar") is None


def test_labels_are_finished_in_the_precision_they_were_begun_in(source: Path, out: str, digest: str) -> None:
    here = machine.precision("auto").name
    other: machine.Name = "bf16" if here == "fp32" else "fp32"
    assert label_precision(AUTO, [out], digest, OPTIONS).name == OPTIONS.precision
    # As if another machine had made them; the first folder has none yet.
    receipt = read_receipt(out, ALL[0])
    assert receipt is not None
    changed = receipt.model_copy(update={"options": {**receipt.options, "precision": other}})
    for shard in ALL:
        (Path(out) / receipt_name(shard)).write_bytes(changed.to_json())
    chosen = label_precision(AUTO, [f"{out}-none", out], digest, OPTIONS)
    assert (chosen.name, chosen.why) == (other, "these labels were begun in it")
    assert label_precision(AUTO.model_copy(update={"precision": here}), [out], digest, OPTIONS).name == here
    # Of another teacher, or with other options, they are stale anyway.
    assert label_precision(AUTO, [out], "f" * 64, OPTIONS).name == here
    assert label_precision(AUTO, [out], digest, replace(OPTIONS, bits=12)).name == here
