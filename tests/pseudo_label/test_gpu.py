"""What labelling does on a GPU, on a processor by the same code: columns there, halves where memory ends, shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dav2.params import PseudoLabelParams
from dav2.pseudo_label import Labeller, LabelOptions, plan_shards
from dav2.pseudo_label.receipts import LabelError
from dav2.pseudo_label.shares import CLUSTER_THREADS, LARGE, shares
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS

Open = Callable[[LabelOptions], Teacher]
BOTH = replace(OPTIONS, flip_agreement=True, scale_agreement=True)


def labelled(teacher: Teacher, source: Path, out: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Bytes of the labels of one shard, and its rows."""
    import pyarrow.parquet as pq

    task = plan_shards(str(source), str(out), teacher.digest, teacher.options)[0]
    Labeller(teacher, threads=1).label(task)
    rows = pq.read_table(next(out.glob("*.parquet"))).to_pylist()
    return b"".join(_members(out / task.shard)), rows


def _members(path: Path) -> list[bytes]:
    import tarfile

    with tarfile.open(path) as file:
        found = [(each.name, file.extractfile(each)) for each in file.getmembers()]
        return [data.read() for name, data in found if data is not None and not name.endswith(".json")]


def test_a_device_that_measures_gives_the_same_labels_and_columns(
    source: Path, tmp_path: Path, open_teacher: Open
) -> None:
    host, there = open_teacher(BOTH), open_teacher(BOTH)
    assert host.measures is False
    there.measures = True
    (bytes_host, rows_host), (bytes_there, rows_there) = (
        labelled(teacher, source, tmp_path / name) for teacher, name in ((host, "host"), (there, "there"))
    )
    assert bytes_host == bytes_there
    for one, other in zip(rows_host, rows_there, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if isinstance(value, float):
                assert math.isclose(value, other[name], rel_tol=1e-5, abs_tol=1e-7), name
            elif not name.startswith(("offset", "size")):
                assert value == other[name]


def small_memory(teacher: Teacher, most: int) -> None:
    """Let the teacher's network run out of memory above so many photographs."""
    honest = teacher.teaching.predict

    def predict(batch: Tensor, keys: Any) -> Any:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return honest(batch, keys)

    teacher.teaching.predict = predict  # type: ignore[method-assign]


def test_a_batch_that_does_not_fit_is_halved_and_said(
    source: Path, tmp_path: Path, open_teacher: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy, tight = open_teacher(BOTH), open_teacher(BOTH)
    small_memory(tight, 1)
    (expected, rows), (found, other) = labelled(roomy, source, tmp_path / "a"), labelled(tight, source, tmp_path / "b")
    assert len(rows) == len(other) and tight.halved > 0 and roomy.halved == 0
    assert len(found) == pytest.approx(len(expected), rel=0.01)
    said = capsys.readouterr().err
    assert said.count("do not fit the memory of cpu; it goes on with 1") == 1


def test_a_photograph_that_fits_alone_nowhere_is_named(source: Path, tmp_path: Path, open_teacher: Open) -> None:
    teacher = open_teacher(OPTIONS)
    small_memory(teacher, 0)
    with pytest.raises(LabelError, match=r"photos/scene_\d/view_\d+: does not fit the memory of cpu"):
        labelled(teacher, source, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "cores", "gpus", "parameters", "expected"),
    [
        ({"runner": "process_pool"}, 16, 1, 24_000_000, (4, 4)),
        ({"runner": "process_pool"}, 16, 1, LARGE, (1, 16)),
        ({"runner": "process_pool"}, 64, 8, 24_000_000, (16, 4)),
        ({"runner": "process_pool"}, 2, 0, 24_000_000, (1, 2)),
        ({"runner": "process_pool", "workers": 2, "threads": 8}, 8, 1, 0, (2, 4)),
        ({"runner": "process_pool", "workers": 2, "threads": 3}, 8, 1, 0, (2, 3)),
        ({"workers": 8}, 2, 0, 0, (1, 2)),
        ({"runner": "ray", "workers": 64}, 2, 0, 0, (64, CLUSTER_THREADS)),
        ({"runner": "slurm", "threads": 16}, 2, 0, 0, (1, 16)),
    ],
)
def test_cores_are_shared_out(
    settings: dict[str, Any], cores: int, gpus: int, parameters: int, expected: tuple[int, int]
) -> None:
    assert shares(PseudoLabelParams(sources=["photos"], **settings), cores, gpus, parameters) == expected
