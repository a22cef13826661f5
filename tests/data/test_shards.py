"""Shards are plain WebDataset tars, equal for equal frames; hostile ones are refused before their bytes are used."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest

from dav2.data.frame import Frame, Intrinsics
from dav2.data.images import encode_jpeg
from dav2.data.store.depth_codec import metric_codes
from dav2.data.store.manifest import read_manifest
from dav2.data.store.shards import ShardError, ShardWriter, frame_members, read_frame, read_member, walk
from dav2.maps import LAYERS
from tests.data.builders import photograph


def write_shard(path, keys):
    with ShardWriter(path) as shard:
        places = {key: shard.add(key, {"jpg": b"j" * 700, "depth.zst": b"d", "json": b"{}"}) for key in keys}
    return shard, places


def test_any_tar_reader_finds_the_members_of_a_frame_side_by_side(tmp_path):
    keys = ["set/scene-1/0001", "set/" + "long_" * 30 + "/0002"]
    write_shard(tmp_path / "a.tar", keys)
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
        assert names == [f"{key}.{field}" for key in keys for field in ("jpg", "depth.zst", "json")]
        assert {(m.mtime, m.uid, m.gid, m.isreg()) for m in archive} == {(0, 0, 0, True)}
    # The rule by which WebDataset groups: the key ends at the first dot of the base name.
    grouped = {name[: name.index(".", name.rindex("/"))] for name in names}
    assert grouped == set(keys)


def test_places_point_at_the_bytes(tmp_path):
    _, places = write_shard(tmp_path / "a.tar", ["set/scene/1", "set/" + "long_" * 30 + "/2"])
    for found in places.values():
        assert read_member(tmp_path, "a.tar", *found["jpg"]) == b"j" * 700
        assert read_member(tmp_path, "a.tar", *found["depth.zst"]) == b"d"


def test_the_hash_is_that_of_the_file_and_equal_frames_give_equal_files(tmp_path):
    first, _ = write_shard(tmp_path / "a.tar", ["s/a/1", "s/a/2"])
    write_shard(tmp_path / "b.tar", ["s/a/1", "s/a/2"])
    data = (tmp_path / "a.tar").read_bytes()
    assert (first.sha256, first.size, first.frames) == (hashlib.sha256(data).hexdigest(), len(data), 2)
    assert data == (tmp_path / "b.tar").read_bytes()


def test_walking_gives_what_was_written(tmp_path):
    _, places = write_shard(tmp_path / "a.tar", ["s/a/1", "s/a/2"])
    found = {(m.key, m.field): m for m in walk(tmp_path / "a.tar")}
    assert found[("s/a/2", "depth.zst")].data == b"d"
    assert all(found[(key, field)].place == place for key, by in places.items() for field, place in by.items())


@pytest.mark.parametrize(
    ("key", "members", "words"),
    [
        ("no-slash", {"jpg": b""}, "must look like"),
        ("s/a/with.dot", {"jpg": b""}, "must look like"),
        ("s/../x", {"jpg": b""}, "must look like"),
        ("s/a/1", {"pkl": b""}, r"do not hold \['pkl'\]"),
    ],
)
def test_bad_keys_and_member_kinds_are_refused_and_no_file_stays(tmp_path, key, members, words):
    with pytest.raises(ShardError, match=words), ShardWriter(tmp_path / "a.tar") as shard:
        shard.add(key, members)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_key_is_refused(tmp_path):
    with pytest.raises(ShardError, match="added before"):
        write_shard(tmp_path / "a.tar", ["s/a/1", "s/a/1"])


def hostile(path, *entries):
    with tarfile.open(path, "w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))


def entry(name, kind=tarfile.REGTYPE, size=4, link=""):
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, size if kind == tarfile.REGTYPE else 0, link
    return made


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("/etc/passwd.jpg")], "etc/passwd"),
        ([entry("../../x/y.jpg")], "x/y.jpg"),
        ([entry("s/a/1.jpg", tarfile.SYMTYPE, link="/etc/passwd")], "not a plain file"),
        ([entry("s/a/1.jpg", tarfile.LNKTYPE, link="s/a/2.jpg")], "not a plain file"),
        ([entry("s/a/1.jpg", tarfile.CHRTYPE)], "not a plain file"),
        ([entry("s/a/1.pkl")], "member 's/a/1.pkl'"),
        ([entry("s/a/1.tar.jpg")], "member 's/a/1.tar.jpg'"),
        ([entry("s/a/1.jpg"), entry("s/a/1.jpg")], "there twice"),
    ],
)
def test_hostile_archives_are_refused(tmp_path, entries, words):
    hostile(tmp_path / "a.tar", *entries)
    with pytest.raises(ShardError, match=words):
        list(walk(tmp_path / "a.tar"))


def test_a_cut_off_archive_is_refused(tmp_path):
    write_shard(tmp_path / "a.tar", ["s/a/1", "s/a/2"])
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b.tar").write_bytes(data[:3500])
    (tmp_path / "c.tar").write_bytes(b"not a tar file at all" * 100)
    for name in ("b.tar", "c.tar"):
        with pytest.raises(ShardError):
            list(walk(tmp_path / name))


def stored_frame(folder, *, depth=True):
    """One frame written to a shard, and its manifest row."""
    rgb = photograph(1)
    jpeg = encode_jpeg(rgb)
    truth = np.linspace(1, 9, rgb.shape[0] * rgb.shape[1], dtype=np.float32).reshape(rgb.shape[:2])
    truth[0], truth[1] = np.inf, np.nan
    camera = Intrinsics(50.0, 51.0, 40.0, 30.0)
    frame = Frame("s/a/1", rgb, truth if depth else None, intrinsics=camera, jpeg=jpeg, extra={"scene": "indoor"})
    codes = None if frame.depth is None else metric_codes(frame.depth)
    with ShardWriter(folder / "a.tar") as shard:
        places = shard.add(frame.key, frame_members(frame, codes, {"extra": frame.extra}, lossless=False, quality=95))
    stored = places.get("depth.zst")
    row = {
        "key": frame.key,
        "shard": "a.tar",
        "offset_image": places["jpg"].offset,
        "size_image": places["jpg"].size,
        "ext_image": "jpg",
        "offset_depth": stored.offset if stored else 0,
        "size_depth": stored.size if stored else 0,
        "offset_json": places["json"].offset,
        "size_json": places["json"].size,
        **dict.fromkeys((f"size_{layer}" for layer in LAYERS), 0),
        "metric": True,
        "sha256": hashlib.sha256(jpeg).hexdigest(),
        **camera._asdict(),
    }
    return frame, row


def test_a_frame_comes_back_from_its_row(tmp_path):
    frame, row = stored_frame(tmp_path)
    back = read_frame(tmp_path, row)
    assert back.jpeg == frame.jpeg and back.intrinsics == frame.intrinsics and back.extra == {"scene": "indoor"}
    assert np.isinf(back.depth[0]).all() and np.isnan(back.depth[1]).all()
    assert np.allclose(back.depth[2:], frame.depth[2:], rtol=2e-4)


def test_a_frame_without_depth_comes_back_without(tmp_path):
    _, row = stored_frame(tmp_path, depth=False)
    assert read_frame(tmp_path, row).depth is None


def test_changed_image_bytes_are_noticed(tmp_path):
    _, row = stored_frame(tmp_path)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[row["offset_image"] + 300] ^= 1
    (tmp_path / "a.tar").write_bytes(bytes(data))
    with pytest.raises(ShardError, match=r"image of 's/a/1' is not the one in the manifest"):
        read_frame(tmp_path, row)


def test_benchmark_pixels_are_stored_without_loss():
    frame = Frame("s/a/1", photograph(3))
    members = frame_members(frame, None, {}, lossless=True, quality=95)
    assert list(members) == ["png", "json"] and json.loads(members["json"]) == {}


def test_a_missing_manifest_says_what_to_run(tmp_path):
    with pytest.raises(ValueError, match="dav2 data ingest"):
        read_manifest(tmp_path)
