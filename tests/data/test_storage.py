"""Writes are whole or absent, locally and on a real S3 server; what the server fails is asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from dav2.data import ranges, storage
from dav2.data.storage import StorageError
from dav2.files import remove_unfinished


def test_a_failing_writer_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), storage.atomic_file(tmp_path / "a.bin") as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failing_writer_leaves_the_former_file(tmp_path):
    storage.write(tmp_path / "a.bin", b"old")
    with pytest.raises(RuntimeError), storage.atomic_file(tmp_path / "a.bin") as file:
        file.write(b"new")
        raise RuntimeError
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_files_get_the_permissions_that_the_user_gives_to_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        storage.write(tmp_path / "a.bin", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o640


def test_a_writer_killed_half_way_leaves_only_what_is_swept_up(tmp_path):
    code = """
        import sys, os, signal
        from dav2.data import storage
        with storage.atomic_file(sys.argv[1]) as file:
            file.write(b"half"); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.bin")])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.bin").exists()
    assert storage.names(tmp_path) == []
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "..\\x"])
def test_names_cannot_lead_out_of_a_directory(name):
    with pytest.raises(StorageError, match="lead out"):
        storage.join("data", name)


def test_of_two_creators_the_first_wins(tmp_path):
    assert storage.create_once(tmp_path / "marker", b"first")
    assert not storage.create_once(tmp_path / "marker", b"second")
    assert storage.names(tmp_path) == ["marker"]
    assert storage.read(tmp_path / "marker") == b"first"


def test_ranges_come_in_the_order_asked_and_a_cut_off_file_is_named(tmp_path):
    path = str(tmp_path / "a.bin")
    Path(path).write_bytes(bytes(range(100)))
    assert ranges.read_ranges([(path, 90, 2), (path, 3, 1), (path, 0, 0)]) == [b"\x5a\x5b", b"\x03", b""]
    with pytest.raises(StorageError, match=r"a\.bin: 5 of 10 bytes at 95"):
        ranges.read_ranges([(path, 95, 10)])


def test_a_bucket_behaves_like_a_folder(bucket):
    path = storage.join(bucket, "deep/a.bin")
    assert not storage.exists(path) and storage.names(f"{bucket}/deep") == []
    storage.write(path, bytes(range(100)))
    assert storage.exists(path) and storage.size(path) == 100 and storage.names(f"{bucket}/deep") == ["a.bin"]
    assert storage.read(path) == bytes(range(100))
    assert ranges.read_ranges([(path, 90, 2), (path, 3, 1)]) == [b"\x5a\x5b", b"\x03"]
    with pytest.raises(StorageError, match=r"a\.bin: 5 of 10 bytes at 95"):
        ranges.read_ranges([(path, 3, 1), (path, 95, 10)])
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path)
    storage.write(path, b"x")
    storage.remove_tree(f"{bucket}/deep")
    assert storage.names(f"{bucket}/deep") == []


def test_neighbours_are_fetched_by_one_request_and_distant_ranges_by_their_own(bucket, monkeypatch):
    asked = []
    remote = storage.filesystem(bucket)
    real = remote.cat_ranges

    def count(paths, *more, **named):
        asked.append(len(paths))
        return real(paths, *more, **named)

    monkeypatch.setattr(remote, "cat_ranges", count)
    data = np.random.default_rng(0).integers(0, 256, 4 * ranges.GAP, dtype=np.uint8).tobytes()
    for name in ("a.bin", "b.bin"):
        storage.write(f"{bucket}/{name}", data)
    far = 3 * ranges.GAP
    wanted = [("b.bin", 0, 9), ("a.bin", far, 7), ("a.bin", 100, 50), ("a.bin", 120, 100), ("a.bin", 5000, 1)]
    found = ranges.read_ranges([(f"{bucket}/{name}", offset, size) for name, offset, size in wanted])
    assert found == [data[offset : offset + size] for _, offset, size in wanted]
    assert asked == [3]


def test_a_long_range_is_written_to_a_file_whatever_the_server_fails(failing_bucket, tmp_path):
    data = np.random.default_rng(0).bytes(3 * 2**20)
    storage.write(f"{failing_bucket}/long.bin", data)
    for start, end in [(0, len(data)), (5, 6), (1000, 2**20 + 1), *[(n, n + 99) for n in range(20)]]:
        with (tmp_path / "part").open("w+b") as file:
            ranges.fetch_range(f"{failing_bucket}/long.bin", start, end, file)
        assert (tmp_path / "part").read_bytes() == data[start:end]


def test_an_absent_object_is_named_and_what_to_do(bucket):
    storage.write(f"{bucket}/here.tar", b"0123456789")
    with pytest.raises(FileNotFoundError, match=r"no such object; ingest this source again: '.*/gone.tar'"):
        ranges.read_ranges([(f"{bucket}/here.tar", 0, 4), (f"{bucket}/gone.tar", 0, 4)])


def test_a_range_that_is_cut_off_is_named(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    storage.write(f"{bucket}/short.bin", b"0123456789")
    with (
        (tmp_path / "part").open("w+b") as file,
        pytest.raises(StorageError, match=r"short.bin: 5 of 15 bytes at 5; the file is cut off"),
    ):
        ranges.fetch_range(f"{bucket}/short.bin", 5, 20, file)


def test_in_a_bucket_too_the_first_creator_wins(bucket):
    assert storage.create_once(f"{bucket}/marker", b"first")
    assert not storage.create_once(f"{bucket}/marker", b"second")
    assert storage.read(f"{bucket}/marker") == b"first"


def test_an_upload_that_is_broken_off_leaves_no_object(bucket):
    with pytest.raises(RuntimeError), storage.atomic_file(f"{bucket}/a.bin") as file:
        file.write(b"half")
        raise RuntimeError
    assert storage.names(bucket) == []


def test_absent_objects_are_reported_at_once(bucket):
    with pytest.raises(FileNotFoundError):
        storage.read(f"{bucket}/nothing")
    with pytest.raises(FileNotFoundError):
        storage.size(f"{bucket}/nothing")


def test_requests_that_the_server_fails_are_repeated(failing_bucket):
    for number in range(20):
        path = f"{failing_bucket}/{number}.bin"
        storage.write(path, bytes([number]) * 1000)
        assert storage.read(path) == bytes([number]) * 1000
        assert ranges.read_ranges([(path, n, 1) for n in range(3)]) == [bytes([number])] * 3
    assert len(storage.names(failing_bucket)) == 20


def test_a_server_that_always_fails_is_named_after_a_few_tries(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=r"reading s3://.*a\.bin failed 2 times"):
        storage.read(f"{bucket}/a.bin")
