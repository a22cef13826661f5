"""Every unlabelled reader finds its photographs in the set's exact layout, upright, and nothing else."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dav2.data.frame import FrameError
from dav2.data.images import encode_jpeg, encode_png
from dav2.data.raw.sources import Item, Source, SourceError, open_source

PICTURE = (np.indices((40, 60)).sum(0)[..., None] * np.array([1, 2, 1])).astype(np.uint8)
JPEG = encode_jpeg(PICTURE)


def put(root: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def put_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def opened(reader: str, path: Path, **options: Any) -> tuple[Source, list[Item]]:
    source = open_source(reader, path, "set", options)
    return source, source.index()


def keys(reader: str, path: Path, **options: Any) -> list[str]:
    _, items = opened(reader, path, **options)
    assert {item.split for item in items} == {"train"}
    return [item.key.removeprefix("set/") for item in items]


@pytest.mark.parametrize("packed", [False, True])
def test_landmarks_are_the_training_photographs_by_their_id(tmp_path: Path, packed: bool) -> None:
    if packed:
        put_tar(tmp_path / "train" / "images_000.tar", {"0/1/2/0123456789abcdef.jpg": JPEG})
        put_tar(tmp_path / "index" / "images_000.tar", {"0/1/2/0123456789abcdee.jpg": JPEG})
    else:
        put(tmp_path, "train/0/1/2/0123456789abcdef.jpg", "test/0/1/2/0123456789abcdee.jpg")
    (tmp_path / "train.csv").write_text("id,url,landmark_id\n", encoding="utf-8")
    assert keys("landmarks", tmp_path) == ["012/0123456789abcdef"]


def test_imagenet_is_read_from_tars_within_a_tar_and_told_by_its_bytes(tmp_path: Path) -> None:
    inner = put_tar(
        tmp_path / "x" / "inner.tar",
        {"n01440764_10026.JPEG": JPEG, "n01440764_7.JPEG": encode_png(PICTURE), "n01440764_8.JPEG": b"GIF89a broken"},
    )
    put_tar(tmp_path / "set" / "winter21_whole.tar", {"winter21_whole/n01440764.tar": inner})
    source, items = opened("imagenet21k", tmp_path / "set")
    assert [item.key for item in items] == [f"set/n01440764/{number}" for number in ("10026", "7", "8")]
    np.testing.assert_array_equal(source.read(items[1]).rgb, PICTURE)
    with pytest.raises(FrameError, match="damaged GIF"):
        source.read(items[2])


@pytest.mark.parametrize("layout", ["loose tars", "unpacked"])
def test_imagenet_is_also_read_from_loose_tars_and_folders(tmp_path: Path, layout: str) -> None:
    if layout == "unpacked":
        put(tmp_path, "n02/n01440764/n01440764_1.JPEG")
    else:
        put_tar(tmp_path / "n01440764.tar", {"n01440764_1.JPEG": JPEG})
    assert keys("imagenet21k", tmp_path) == ["n01440764/1"]


def test_imagenets_stand_in_for_missing_photographs_is_quarantined(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "GIF")
    put(tmp_path, "n01440764/n01440764_1.JPEG", data=buffer.getvalue().ljust(2051, b"\0"))
    source, items = opened("imagenet21k", tmp_path)
    with pytest.raises(FrameError, match=r"stand-in.*2051"):
        source.read(items[0])


def write_lsun(root: Path, category: str, values: dict[str, bytes]) -> None:
    import lmdb

    folder = root / f"{category}_train_lmdb"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)


def test_lsuns_values_are_told_by_their_bytes(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "WEBP", lossless=True)
    hashes = [letter * 40 for letter in "abc"]
    write_lsun(tmp_path, "church_outdoor", dict(zip(hashes, (JPEG, buffer.getvalue(), b"nothing"), strict=True)))
    source, items = opened("lsun", tmp_path)
    assert [item.key for item in items] == [f"set/church_outdoor/{h}" for h in hashes]
    assert source.read(items[0]).jpeg == JPEG
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(items[1]).rgb, PICTURE)
    with pytest.raises(FrameError, match="c" * 40):
        source.read(items[2])


def test_lsun_can_be_read_in_a_forked_process(tmp_path: Path) -> None:
    write_lsun(tmp_path, "bridge", {"a" * 40: JPEG})
    source, (item,) = opened("lsun", tmp_path)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if source.read(item).jpeg == JPEG else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert source.read(item).jpeg == JPEG


def test_an_lsun_file_cut_short_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    write_lsun(tmp_path, "tower", {f"{n:040x}": JPEG * 5 for n in range(50)})
    path = tmp_path / "tower_train_lmdb" / "data.mdb"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(SourceError, match="cut short"):
        opened("lsun", tmp_path)


def test_objects365_is_read_from_compressed_archives_without_unpacking(tmp_path: Path) -> None:
    for patch in (0, 12):
        members = {f"patch{patch}/objects365_v2_0000000{n}.jpg": encode_jpeg(np.roll(PICTURE, n, 0)) for n in range(3)}
        put_tar(tmp_path / "train" / f"patch{patch}.tar.gz", members, "w:gz")
    put(tmp_path, "val/images/v1/patch0/objects365_v1_00000009.jpg")
    source, items = opened("objects365", tmp_path)
    assert [i.key for i in items] == [f"set/patch{p}/objects365_v2_0000000{n}" for p in (0, 12) for n in range(3)]
    for item in reversed(items):
        shift = int(item.key[-1])
        assert np.abs(source.read(item).rgb.astype(int) - np.roll(PICTURE, shift, 0)).mean() < 2


def test_open_images_are_turned_as_their_table_says(tmp_path: Path) -> None:
    turned, upright, unknown = "0" * 15 + "a", "0" * 15 + "b", "0" * 15 + "c"
    put(tmp_path, *(f"train_0/{name}.jpg" for name in (turned, upright, unknown)), "validation/0000000000000000.jpg")
    rows = [
        ("ImageID", "Subset", "Rotation"),
        (turned, "train", "90.0"),
        (upright, "train", "0.0"),
        (unknown, "train", ""),
    ]
    (tmp_path / "image_ids_and_rotation.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    source, items = opened("openimages", tmp_path)
    assert [item.key for item in items] == [f"set/train_0/{name}" for name in (turned, upright, unknown)]
    frame = source.read(items[0])
    assert frame.jpeg is None
    # Counter-clockwise: what was the right edge is now the top.
    assert np.abs(frame.rgb[0].astype(int) - PICTURE[:, -1]).max() < 12
    assert source.read(items[1]).jpeg == JPEG
    assert source.read(items[2]).rgb.shape == (40, 60, 3)


def test_open_images_without_the_table_say_that_rotation_is_unknown(tmp_path: Path) -> None:
    put(tmp_path, "train_0/0000000000000000.jpg")
    source, _ = opened("openimages", tmp_path)
    assert any("image_ids_and_rotation.csv" in note for note in source.notes())


@pytest.mark.parametrize("folder", ["data_large", "data_large_standard", "data_256_challenge"])
def test_places_keeps_the_category_in_the_key(tmp_path: Path, folder: str) -> None:
    put(tmp_path, f"{folder}/s/swimming_pool/indoor/00000001.jpg", f"{folder}/a/abbey/00000001.jpg")
    put(tmp_path, "val_large/Places365_val_00000001.jpg")
    assert keys("places365", tmp_path) == ["a/abbey/00000001", "s/swimming_pool/indoor/00000001"]


def test_sa1b_finds_photographs_wherever_they_stand_in_the_tar(tmp_path: Path) -> None:
    members = {"./sa_12.jpg": JPEG, "./sa_1205.jpg": JPEG, "./sa_1205.json": b"{}", "./sa_12.json": b"{}"}
    put_tar(tmp_path / "sa_000000.tar", members)
    source, items = opened("sa1b", tmp_path)
    assert [item.key for item in items] == ["set/00000/sa_12", "set/00001/sa_1205"]
    assert source.read(items[0]).jpeg == JPEG


def write_video(path: Path, frames: int, rotation: int = 0, size: tuple[int, int] = (48, 64)) -> None:
    """Frame n is grey with value 2 n, its left half brighter."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "5"}
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            picture = np.full((*size, 3), 2 * number, np.uint8)
            picture[:, : size[1] // 2] += 100
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def test_bdd100k_takes_every_tenth_frame_of_the_training_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "bdd100k" / "videos" / "train" / "00a0f008-3c67908e.mov", 35)
    put(tmp_path, "bdd100k/videos/val/b1c66a42-6f7d68ca.mov", data=b"not read")
    source, items = opened("bdd100k", tmp_path)
    assert [i.key for i in items] == [f"set/00a0f008-3c67908e/{n:06d}" for n in (0, 10, 20, 30)]
    for item, number in [*zip(items, (0, 10, 20, 30), strict=True), (items[1], 10)]:
        frame = source.read(item)
        assert frame.rgb.shape == (48, 64, 3)
        assert abs(float(frame.rgb[:, 40:].mean()) - 2 * number) < 2
        assert abs(float(frame.rgb[:, :24].mean()) - 2 * number - 100) < 2


def test_bdd100k_turns_a_portrait_video_upright(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "train" / "a-b.mov", 1, rotation=-90)
    source, items = opened("bdd100k", tmp_path)
    rgb = source.read(items[0]).rgb
    assert rgb.shape == (64, 48, 3)
    # Turned clockwise: what was the left half is now the upper one.
    assert rgb[:24].mean() > rgb[40:].mean() + 80


def test_bdd100k_quarantines_videos_that_do_not_parse_or_end_early(tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "train"
    put(folder, "text.mov", data=b"404")
    write_video(folder / "whole.mov", 25)
    source, items = opened("bdd100k", tmp_path)
    with pytest.raises(FrameError, match=r"text\.mov: not a readable video"):
        source.read(next(item for item in items if "text" in item.key))
    late = Item("set/whole/000900", "whole", "train", ("videos/train/whole.mov",), {"frame": 900})
    with pytest.raises(FrameError, match="ends after 25 frames, before frame 900"):
        source.read(late)


def test_bdd100ks_key_frames_are_the_training_images(tmp_path: Path) -> None:
    put(tmp_path, "bdd100k/images/100k/train/00a0f008-3c67908e.jpg", "bdd100k/images/100k/val/b1c66a42-6f7d68ca.jpg")
    assert keys("bdd100k", tmp_path, frames="keyframes") == ["00a0f008-3c67908e/keyframe"]


def test_what_an_archive_must_not_hold_is_quarantined_through_the_reader(tmp_path: Path) -> None:
    put_tar(tmp_path / "sa_000000.tar", {"./sa_1.jpg": JPEG, "../sa_2.jpg": JPEG})
    source, items = opened("sa1b", tmp_path)
    assert len(items) == 2
    with pytest.raises(FrameError, match=r"\.\./sa_2\.jpg: path climbs out"):
        source.read(next(item for item in items if item.scene == "refused"))
