"""An archive that is damaged on purpose costs itself: what is sound beside it is read, and scanning ends."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dav2.data.frame import FrameError
from dav2.data.raw import archives
from dav2.data.raw.tree import Tree


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))


def tar(name: str, data: bytes = b"abc", **pax: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.pax_headers = len(data), {key.replace("_", "."): value for key, value in pax.items()}
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def nested(depth: int) -> bytes:
    data = tar("a.jpg")
    for _ in range(depth):
        data = tar("in.tar", data)
    return data


def with_size(field: bytes) -> bytes:
    data = bytearray(tar("a.jpg"))
    data[124:136] = field
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


HOSTILE = {
    "negative.tar": tar("a.jpg", size="-5"),
    "float.tar": tar("a.jpg", size="1e30"),
    "sparse.tar": tar("a.jpg", GNU_sparse_map="a,b"),
    "sparse2.tar": tar("a.jpg", GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_name="x"),
    "base256.tar": with_size(b"\x80" + b"\xff" * 11),
    "minus256.tar": with_size(b"\xff" * 11 + b"\xf0"),
    "deep.tar": nested(12),
    "garbage.tar.bz2": b"no bzip at all",
    "garbage.tar.gz": b"no gzip at all",
    "garbage.tar.xz": b"no xz at all",
    "garbage.tar": b"x" * 2000,
    "garbage.zip": b"PK\x05\x06" + b"x" * 40,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_its_neighbours_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(HOSTILE[name])
    (tmp_path / "set" / "good.jpg").write_bytes(b"good")
    (tmp_path / "set" / "sound.tar").write_bytes(tar("b.jpg"))
    tree = Tree(tmp_path / "set")
    names = tree.names()
    assert "good.jpg" in names and "sound.tar!/b.jpg" in names
    refused = [found for found, _ in tree.refused() if found.startswith(name)]
    assert refused or any(found.startswith(name) for found in names)
    if name != "float.tar" and not name.startswith("sparse"):
        assert refused


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".zip"])
def test_a_small_archive_that_unpacks_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(archives, "FREE", 2**20)
    path, zeros = tmp_path / f"bomb{suffix}", bytes(2**25)
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("zeros.npy", zeros)
    else:
        with tarfile.open(path, f"w:{suffix[5:]}") as archive:  # type: ignore[call-overload]
            for name in ("zeros.npy", "last.npy"):
                info = tarfile.TarInfo(name)
                info.size = len(zeros)
                archive.addfile(info, io.BytesIO(zeros))
    (tmp_path / "good.jpg").write_bytes(b"good")
    tree = Tree(tmp_path)
    assert "good.jpg" in tree.names()
    (said,) = [why for name, why in tree.refused() if name.startswith("bomb")]
    assert "unpacks to more than 100 times its size" in said


def test_files_wanted_backwards_from_a_compressed_tar_end_before_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE", 2**20)
    names = [f"{number:03d}.bin" for number in range(200)]
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 2**15
            archive.addfile(info, io.BytesIO(np.random.default_rng(int(name[:3])).bytes(2**15)))
    tree = Tree(tmp_path / "set.tar.gz")
    assert tree.names() == names and all(len(tree.read(name)) == 2**15 for name in names)
    with pytest.raises(FrameError, match="another order than they lie in"):
        for name in reversed(names):
            tree.read(name)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_stands_twice_is_counted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"set.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for data in (b"first", b"last!"):
                info = tarfile.TarInfo("a.jpg")
                info.size = 5
                archive.addfile(info, io.BytesIO(data))
    else:
        with zipfile.ZipFile(path, "w") as packed, pytest.warns(UserWarning):
            packed.writestr("a.jpg", b"first")
            packed.writestr("a.jpg", b"last!")
    tree = Tree(path)
    assert tree.names() == ["a.jpg"] and tree.read("a.jpg") == b"last!"
    assert [name for name, _ in tree.refused()] == ["a.jpg"]


def test_keys_of_a_bucket_that_are_no_paths_are_refused(bucket: str) -> None:
    import s3fs

    system = s3fs.S3FileSystem()
    for key in ("set/a.jpg", "set//tmp/x.jpg", "set/../../y.jpg"):
        system.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"x")
    tree = Tree(f"{bucket}/set")
    assert tree.names() == ["a.jpg"]
    assert len(tree.refused()) == 2
