"""Archives are read in place and never trusted; folders, archives and buckets look the same to a reader."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from dav2.data.frame import FrameError
from dav2.data.raw.archives import SourceError
from dav2.data.raw.members import clean_name
from dav2.data.raw.tree import Tree

FILES = {"a/1.txt": b"one", "a/2.txt": b"two" * 1000, "b.txt": b""}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def tar(members: dict[str, bytes], mode: str = "w", links: tuple[tuple[str, str, bytes], ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target, kind in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def place(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder
    path = folder / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in FILES.items():
                archive.writestr(f"./{name}", data)
    else:
        mode = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[kind]
        path.write_bytes(tar({f"./{name}": data for name, data in FILES.items()}, mode))
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip"])
def test_every_container_gives_the_same_names_and_bytes(tmp_path: Path, kind: str) -> None:
    tree = Tree(place(tmp_path / "data", kind))
    assert tree.names() == sorted(FILES)
    # Backwards too: a compressed archive is a forward stream underneath.
    for name in [*sorted(FILES), *sorted(FILES, reverse=True)]:
        assert tree.read(name) == FILES[name]
        with tree.open(name) as stream:
            stream.seek(-1, io.SEEK_END) if FILES[name] else stream.seek(0)
            assert stream.read() == FILES[name][-1:]


def test_archives_in_a_folder_are_looked_into(tmp_path: Path) -> None:
    place(tmp_path / "data", "tar")
    place(tmp_path / "data" / "more", "zip")
    (tmp_path / "data" / "plain.txt").write_bytes(b"p")
    tree = Tree(tmp_path / "data")
    assert tree.names() == sorted(
        ["plain.txt", *(f"set.tar!/{n}" for n in FILES), *(f"more/set.zip!/{n}" for n in FILES)]
    )
    assert tree.read("more/set.zip!/a/2.txt") == FILES["a/2.txt"]


def test_tars_within_a_tar_are_one_flat_list(tmp_path: Path) -> None:
    inner = tar({"n01_1.JPEG": b"x", "n01_2.JPEG": b"yy"})
    path = tmp_path / "whole.tar"
    path.write_bytes(tar({"whole/n01.tar": inner, "whole/n02.tar": inner[:700], "whole/read.me": b"r"}))
    tree = Tree(path)
    assert tree.names() == ["whole/n01/n01_1.JPEG", "whole/n01/n01_2.JPEG", "whole/n02/n01_1.JPEG", "whole/read.me"]
    assert tree.read("whole/n01/n01_2.JPEG") == b"yy"
    assert [name for name, _ in tree.refused()] == ["whole/n02.tar"]


def test_members_that_reach_outside_are_refused_and_counted(tmp_path: Path) -> None:
    links = (
        ("link", "/etc/passwd", tarfile.SYMTYPE),
        ("hard", "good", tarfile.LNKTYPE),
        ("fifo", "", tarfile.FIFOTYPE),
    )
    bad = {"good": b"g", "/etc/passwd": b"x", "../up": b"x", "a/../../up": b"x", "C:/x": b"x"}
    path = tmp_path / "set.tar"
    path.write_bytes(tar(bad, links=links))
    tree = Tree(path)
    assert tree.names() == ["good"]
    reasons = dict(tree.refused())
    assert set(reasons) == {"/etc/passwd", "../up", "a/../../up", "C:/x", "link", "hard", "fifo"}
    assert reasons["link"] == reasons["hard"] == "link, not a plain file"
    assert reasons["/etc/passwd"] == "absolute path"
    assert "'..'" in reasons["../up"]


def test_zip_members_that_reach_outside_are_refused_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", b"g")
        archive.writestr("../up", b"x")
        archive.writestr("/abs", b"x")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    tree = Tree(path)
    assert tree.names() == ["good"]
    assert {name for name, _ in tree.refused()} == {"../up", "/abs", "link"}


@pytest.mark.parametrize("name", ["/a", "../a", "a/../b", "C:\\a", "\\\\host\\a", "a\0b"])
def test_names_that_could_reach_outside_are_never_cleaned_into_something_else(name: str) -> None:
    with pytest.raises(ValueError, match=r"absolute|climbs|NUL"):
        clean_name(name)


def test_a_listed_name_cannot_leave_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    tree = Tree(place(tmp_path / "data", "folder"))
    for name in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(FrameError, match=r"climbs out|absolute"):
            tree.read(name)


@pytest.mark.parametrize("cut", [600, 1600, 2600])
def test_a_tar_cut_short_keeps_what_is_whole_and_reports_the_rest(tmp_path: Path, cut: int) -> None:
    members = {f"{number}.bin": bytes([number]) * 600 for number in range(4)}
    path = tmp_path / "set.tar"
    path.write_bytes(tar(members)[:cut])
    tree = Tree(path)
    whole = 0
    for name in tree.names():
        try:
            assert tree.read(name) == members[name]
            whole += 1
        except FrameError as error:
            assert name in str(error)
    assert whole == cut // 1536
    assert any("damaged or cut short" in reason for _, reason in tree.refused())


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    data = bytearray(tar({"1": b"a", "2": b"b", "3": b"c"}))
    data[1024 : 1024 + 512] = b"\x07" * 512
    path = tmp_path / "set.tar"
    path.write_bytes(data)
    tree = Tree(path)
    assert tree.names() == ["1"]
    assert "no valid header at byte 1024" in tree.refused()[0][1]


def test_a_damaged_zip_is_refused_and_says_what_a_split_one_needs(tmp_path: Path) -> None:
    (tmp_path / "part.zip").write_bytes(b"PK\x07\x08 not really")
    place(tmp_path, "tar")
    tree = Tree(tmp_path)
    assert len(tree.names()) == 3
    ((name, reason),) = tree.refused()
    assert name == "part.zip!/"
    assert "set.z01" in reason


def test_a_zip_member_with_a_wrong_checksum_is_a_bad_frame(tmp_path: Path) -> None:
    path = place(tmp_path / "data", "zip")
    data = bytearray(path.read_bytes())
    at = data.index(b"./a/2.txt") + len("./a/2.txt") + 2
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FrameError, match=r"a/2\.txt"):
        Tree(path).read("a/2.txt")


def test_a_scan_is_kept_and_made_anew_when_the_archive_changes(tmp_path: Path, cache: Path) -> None:
    path = place(tmp_path / "data", "tar")
    assert len(Tree(path).names()) == 3
    (kept,) = cache.iterdir()
    body = json.loads(kept.read_text())
    body["members"] = body["members"][:1]
    kept.write_text(json.dumps(body))
    assert len(Tree(path).names()) == 1
    path.write_bytes(tar({"new": b"n"}))
    os.utime(path, ns=(1, 1))
    assert Tree(path).names() == ["new"]


def test_a_damaged_cache_is_ignored(tmp_path: Path, cache: Path) -> None:
    path = place(tmp_path / "data", "tar")
    assert len(Tree(path).names()) == 3
    next(cache.iterdir()).write_text("{")
    assert len(Tree(path).names()) == 3


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    for kind in ("folder", "tar", "zip"):
        with pytest.raises(FrameError, match="3000 bytes, more than the 100"):
            Tree(place(tmp_path / kind, kind)).read("a/2.txt", limit=100)


def test_noise_of_file_managers_is_skipped_and_links_in_folders_are_followed(tmp_path: Path) -> None:
    folder = place(tmp_path / "data", "folder")
    for name in (".DS_Store", "__MACOSX/a/1.txt", "a/._1.txt", "Thumbs.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"noise")
    elsewhere = place(tmp_path / "elsewhere", "folder")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder)
    assert Tree(folder).names() == sorted([*FILES, *(f"linked/{name}" for name in FILES)])


def test_a_name_that_is_not_utf8_is_refused_under_a_name_that_can_be_written_down(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9.jpg")
    folder = place(tmp_path / "data", "folder")
    (folder / raw).write_bytes(b"x")
    (folder / "more.tar").write_bytes(tar({raw: b"x", "caf\u00e9.jpg": b"y"}))
    tree = Tree(folder)
    assert tree.names() == sorted([*FILES, "more.tar!/caf\u00e9.jpg"])
    assert [name for name, _ in tree.refused()] == ["caf\ufffd.jpg", "more.tar!/caf\ufffd.jpg"]


def test_a_tree_works_in_another_process(tmp_path: Path) -> None:
    tree = Tree(place(tmp_path / "data", "tar.gz"))
    tree.names()
    assert pickle.loads(pickle.dumps(tree)).read("a/1.txt") == b"one"
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if tree.read("a/1.txt") == b"one" and tree.read("b.txt") == b"" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tree.read("a/2.txt") == FILES["a/2.txt"]


def upload(bucket: str, tmp_path: Path) -> str:
    import s3fs

    system = s3fs.S3FileSystem()
    for name, data in FILES.items():
        system.pipe_file(f"{bucket}/set/{name}", data)
    for kind in ("tar", "tar.gz", "zip"):
        path = place(tmp_path / "data", kind)
        system.pipe_file(f"{bucket}/set/{path.name}", path.read_bytes())
    return f"{bucket}/set"


def test_a_bucket_looks_like_a_folder(bucket: str, tmp_path: Path) -> None:
    tree = Tree(upload(bucket, tmp_path))
    archives = ("set.tar", "set.tar.gz", "set.zip")
    assert tree.names() == sorted([*FILES, *(f"{archive}!/{name}" for archive in archives for name in FILES)])
    for name in FILES:
        assert {tree.read(name), *(tree.read(f"{archive}!/{name}") for archive in archives)} == {FILES[name]}
    with tree.open("set.tar!/a/2.txt") as stream:
        stream.seek(2990)
        assert stream.read() == FILES["a/2.txt"][2990:]
    with pytest.raises(SourceError, match="unpacked local file"):
        tree.local("a/1.txt")
    with pytest.raises(FrameError, match="not there"):
        tree.read("gone")
    with pytest.raises(FrameError, match="3000 bytes, more than the 100"):
        tree.read("a/2.txt", limit=100)


def test_an_archive_in_a_bucket_is_a_data_set_too(bucket: str, tmp_path: Path) -> None:
    tree = Tree(f"{upload(bucket, tmp_path)}/set.tar")
    assert tree.names() == sorted(FILES)
    assert pickle.loads(pickle.dumps(tree)).read("a/1.txt") == b"one"
    with pytest.raises(SourceError, match="dvc pull"):
        Tree(f"{bucket}/set/nothing.tar")
    with pytest.raises(SourceError, match="dvc pull"):
        Tree(f"{bucket}/nothing").names()


def test_a_server_that_fails_one_request_in_ten_loses_nothing(failing_bucket: str, tmp_path: Path) -> None:
    tree = Tree(upload(failing_bucket, tmp_path))
    assert len(tree.names()) == 12
    for _ in range(3):
        for name in tree.names():
            assert tree.read(name) == FILES[name.rpartition("!/")[2]]
