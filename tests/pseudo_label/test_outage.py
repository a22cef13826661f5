"""Labelling into a bucket whose server stops: one line, and the same labels once it is back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
import s3fs

from dav2.data import storage
from dav2.pseudo_label import LabelError, Labeller, LabelOptions, finish, plan_shards
from dav2.pseudo_label.cache import ShardCache
from dav2.pseudo_label.teacher import Teacher
from tests.data.conftest import _use
from tests.data.outage import StoppableServer
from tests.pseudo_label.conftest import OPTIONS


def label(source: str, out: str, teacher: Teacher, cache: Path, after_each: Callable[[], None]) -> None:
    labeller = Labeller(teacher, threads=2, cache=ShardCache(cache))
    for task in plan_shards(source, out, teacher.digest, OPTIONS):
        labeller.label(task)
        after_each()
    finish(out)


def test_labels_go_on_after_the_store_was_away(
    source: Path, tmp_path: Path, open_teacher: Callable[[LabelOptions], Teacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, local = open_teacher(OPTIONS), tmp_path / "local"
    label(str(source), str(local), teacher, tmp_path / "unused", lambda: None)
    with StoppableServer() as server:
        _use(monkeypatch, server.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        name = f"bucket-{uuid4().hex[:12]}"
        s3fs.S3FileSystem().mkdir(name)
        out = f"s3://{name}/labels"
        with pytest.raises(LabelError, match=f"{name}.* failed 5 times"):
            label(str(source), out, teacher, tmp_path / "cache", server.stop)
        server.come_back()
        s3fs.S3FileSystem.clear_instance_cache()
        assert 0 < len(plan_shards(str(source), out, teacher.digest, OPTIONS)) < 3, "what was done is not done again"
        label(str(source), out, teacher, tmp_path / "cache", lambda: None)
        for path in local.iterdir():
            if path.suffix != ".json":
                assert storage.read(storage.join(out, path.name)) == path.read_bytes(), path.name
