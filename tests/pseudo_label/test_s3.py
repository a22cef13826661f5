"""S3 in, S3 out, against a real server that fails, slows and cuts off answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dav2.data import storage
from dav2.data.store.manifest import MANIFEST, point
from dav2.pseudo_label import Labeller, LabelOptions, finish, plan_shards
from dav2.pseudo_label.cache import ShardCache
from dav2.pseudo_label.teacher import Teacher
from tests.data.conftest import bucket, s3_server  # noqa: F401
from tests.pseudo_label.conftest import OPTIONS
from tests.pseudo_label.unreliable import UnreliableProxy

Open = Callable[[LabelOptions], Teacher]


def upload(folder: Path, url: str) -> None:
    for path in folder.iterdir():
        storage.write(storage.join(url, path.name), path.read_bytes())


def label_everything(source: str, out: str, teacher: Teacher, cache: ShardCache) -> None:
    labeller = Labeller(teacher, threads=2, cache=cache)
    for task in plan_shards(source, out, teacher.digest, OPTIONS):
        labeller.label(task)
    finish(out)


def test_labels_in_a_bucket_behind_an_unreliable_server_equal_local_ones(
    bucket: str,  # noqa: F811
    s3_server: str,  # noqa: F811
    source: Path,
    tmp_path: Path,
    open_teacher: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import s3fs

    teacher, local, remote = open_teacher(OPTIONS), tmp_path / "local", f"{bucket}/labels"
    label_everything(str(source), str(local), teacher, ShardCache(tmp_path / "unused"))
    upload(source, f"{bucket}/shards")
    proxy = UnreliableProxy(s3_server.removeprefix("http://"), seed=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    s3fs.S3FileSystem.clear_instance_cache()
    label_everything(f"{bucket}/shards", remote, teacher, ShardCache(tmp_path / "cache"))
    assert plan_shards(f"{bucket}/shards", remote, teacher.digest, OPTIONS) == []
    proxy.close()
    assert all(count > 0 for count in proxy.faults.values())
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    s3fs.S3FileSystem.clear_instance_cache()
    names = [path.name for path in local.iterdir()]
    assert storage.names(remote) == sorted(names)
    for name in names:
        if not name.endswith(".json"):
            assert storage.read(storage.join(remote, name)) == (local / name).read_bytes()
    assert not (tmp_path / "unused").exists()


def test_the_cache_stays_within_its_bound_and_keeps_what_is_in_use(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    for number in range(4):
        storage.write(f"{bucket}/{number}.tar", bytes([number]) * 1000)
    cache = ShardCache(tmp_path / "cache", max_bytes=2000)

    def held() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())

    with cache.local(f"{bucket}/0.tar", "v1") as kept:
        for number in range(1, 4):
            with cache.local(f"{bucket}/{number}.tar", "v1") as path:
                assert path.read_bytes() == bytes([number]) * 1000
            assert held() <= 2000
        assert kept.read_bytes() == bytes(1000)


def test_the_cache_gives_no_copy_of_another_version_and_fetches_again_what_was_dropped(
    bucket: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    cache, path = ShardCache(tmp_path / "cache"), f"{bucket}/a.tar"
    storage.write(path, b"old")
    with cache.local(path, "1") as copy:
        assert copy.read_bytes() == b"old"
    storage.write(path, b"new")
    with cache.local(path, "1") as copy:
        assert copy.read_bytes() == b"old"
    with cache.local(path, "2") as copy:
        assert copy.read_bytes() == b"new"
    cache.drop(path, "1")
    with cache.local(path, "1") as copy:
        assert copy.read_bytes() == b"new"


def test_photographs_of_a_project_whose_shards_are_in_a_bucket_get_the_same_labels(
    bucket: str,  # noqa: F811
    source: Path,
    tmp_path: Path,
    open_teacher: Open,
) -> None:
    teacher, thin = open_teacher(OPTIONS), tmp_path / "thin"
    label_everything(str(source), str(tmp_path / "local"), teacher, ShardCache(tmp_path / "unused"))
    upload(source, f"{bucket}/shards")
    thin.mkdir()
    shutil.copy(source / MANIFEST, thin)
    point(thin, f"{bucket}/shards")
    label_everything(str(thin), str(tmp_path / "out"), teacher, ShardCache(tmp_path / "cache"))
    labels = sorted((tmp_path / "local").glob("*.tar"))
    assert labels and all((tmp_path / "out" / path.name).read_bytes() == path.read_bytes() for path in labels)
