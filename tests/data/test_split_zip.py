"""Archives in parts are read like whole ones; the parts here are put together by hand from the format's description."""

from __future__ import annotations

import struct
import subprocess
import zlib
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from dav2.data import storage
from dav2.data.frame import FrameError
from dav2.data.raw.tree import Tree

MEMBERS = {f"scene/{number}.bin": np.random.default_rng(number).bytes(500 + 97 * number) for number in range(9)}


def write_split(folder: Path, *, wide: bool) -> list[Path]:
    """A stored archive whose parts end in the middle of every third member; ``wide`` adds the records of ZIP64."""
    parts, entries = [bytearray(b"PK\x07\x08")], b""
    for number, (name, data) in enumerate(MEMBERS.items()):
        disk, offset = len(parts) - 1, len(parts[-1])
        common = struct.pack("<HHHHHLLLHH", 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
        parts[-1] += b"PK\x03\x04" + common + name.encode()
        entries += b"PK\x01\x02" + struct.pack("<H", 20) + common
        entries += struct.pack("<HHHLL", 0, disk, 0, 0, offset) + name.encode()
        if number % 3 == 1:
            parts[-1] += data[:100]
            parts.append(bytearray(data[100:]))
        else:
            parts[-1] += data
    last, directory, count = len(parts) - 1, len(parts[-1]), len(MEMBERS)
    parts[-1] += entries
    if wide:
        record = len(parts[-1])
        parts[-1] += b"PK\x06\x06" + struct.pack(
            "<QHHLLQQQQ", 44, 45, 45, last, last, count, count, len(entries), directory
        )
        parts[-1] += b"PK\x06\x07" + struct.pack("<LQL", last, record, last + 1)
        parts[-1] += b"PK\x05\x06" + struct.pack("<HHHHLLH", last, last, count, count, 2**32 - 1, 2**32 - 1, 0)
    else:
        parts[-1] += b"PK\x05\x06" + struct.pack("<HHHHLLH", last, last, count, count, len(entries), directory, 0)
    paths = [folder / f"set.z{number:02d}" for number in range(1, len(parts))] + [folder / "set.zip"]
    folder.mkdir()
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    return paths


def members_of(place: Path | str) -> dict[str, bytes]:
    tree = Tree(place)
    names = [name for name in tree.names() if name.startswith("set.zip!/")]
    assert tree.refused() == []
    return {name.removeprefix("set.zip!/"): tree.read(name) for name in names}


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
def test_members_come_whole_wherever_the_parts_end(tmp_path, wide):
    assert len(write_split(tmp_path / "data", wide=wide)) == 4
    assert members_of(tmp_path / "data") == MEMBERS


def test_parts_may_lie_in_a_bucket(tmp_path, bucket):
    for path in write_split(tmp_path / "data", wide=True):
        storage.write(f"{bucket}/data/{path.name}", path.read_bytes())
    assert members_of(f"{bucket}/data") == MEMBERS


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
@pytest.mark.parametrize(
    ("lost", "reason"),
    [(0, r"set.z01 and the parts after it are not there|last of 4 parts"), (1, "last of 4 parts, of which 2")],
)
def test_a_part_that_is_not_there_is_named(tmp_path, wide, lost, reason):
    write_split(tmp_path / "data", wide=wide)[lost].unlink()
    (tmp_path / "data" / "beside.txt").write_text("x")
    tree = Tree(tmp_path / "data")
    assert not [name for name in tree.names() if "!/" in name]
    ((name, why),) = tree.refused()
    assert name == "set.zip!/"
    assert any(text in why for text in reason.split("|")) or "span multiple disks" in why


def test_a_damaged_member_is_that_members_fault(tmp_path):
    paths = write_split(tmp_path / "data", wide=False)
    data = bytearray(paths[0].read_bytes())
    data[60] ^= 1
    paths[0].write_bytes(data)
    tree = Tree(tmp_path / "data")
    with pytest.raises(ValueError, match=r"scene/0.bin.*Bad CRC"):
        tree.read("set.zip!/scene/0.bin")
    assert tree.read("set.zip!/scene/8.bin") == MEMBERS["scene/8.bin"]


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
def test_damage_anywhere_is_refused_or_harmless_and_no_other_error(tmp_path, wide):
    paths = write_split(tmp_path / "data", wide=wide)
    (tmp_path / "data" / "beside.txt").write_text("x")
    rng, sound = np.random.default_rng(0), [path.read_bytes() for path in paths]
    for _ in range(150):
        number = int(rng.choice([0, 3, 3, 3]))
        data = bytearray(sound[number])
        # Most of the last part's end are the directory and what leads to it.
        data[-int(rng.integers(1, min(700, len(data))))] = int(rng.integers(256))
        paths[number].write_bytes(data)
        tree = Tree(tmp_path / "data")
        for name in tree.names():
            if name.startswith("set.zip!/"):
                try:
                    assert tree.read(name) == MEMBERS[name.removeprefix("set.zip!/")]
                except FrameError:
                    continue
        paths[number].write_bytes(sound[number])


@pytest.mark.skipif(which("zip") is None, reason="the program zip is not installed")
def test_what_the_program_zip_makes_is_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "data").mkdir()
    files = {f"{number}.bin": np.random.default_rng(number).bytes(20_000) for number in range(12)}
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    subprocess.run(["zip", "-q", "-s", "64k", tmp_path / "data/set.zip", *files], cwd=tmp_path / "in", check=True)
    assert members_of(tmp_path / "data") == files
