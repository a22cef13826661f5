"""``dav2 predict`` on good and bad files, through the command itself."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from dav2.cli import build as command_line
from dav2.families.loading import load
from dav2.pictures import Palette, RunningRange
from dav2.predict.places import expand


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows * columns) % 256], axis=-1).astype(np.uint8)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(
        command_line("predict"), ["predict", *map(str, arguments), "--size", "56", "--dtype", "fp32"]
    )


def test_folder_with_every_kind_of_bad_file_is_predicted_past_them(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(photograph(60, 90)).save(folder / "good.jpg")
    Image.fromarray(photograph(90, 60)).save(folder / "sub" / "good.png")
    Image.fromarray(photograph(60, 90)).save(folder / "good.png")
    Image.fromarray(photograph(1, 1)).save(folder / "pixel.png")
    Image.fromarray(photograph(10, 30_000)).save(folder / "ribbon.png")
    Image.new("1", (20_000, 10_000)).save(folder / "bomb.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    buffer = io.BytesIO()
    Image.fromarray(photograph(200, 200)).save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:2000])
    (folder / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    result = run(folder, tmp_path / "missing.jpg", "-m", models / "relative", "-o", tmp_path / "out", "--save", "npy")
    assert result.exit_code == 1, result.output
    for bad in ("ribbon.png", "bomb.png", "empty.jpg", "text.jpg", "cut.jpg", "cut.mp4", "missing.jpg"):
        assert bad in result.output
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["good_depth.npy", "good_png_depth.npy", "pixel_depth.npy", "sub/good_depth.npy"]


def test_files_of_every_kind_are_written_and_16_bits_undo_to_the_prediction(models: Path, tmp_path: Path) -> None:
    Image.fromarray(photograph(60, 90)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    kinds = "png16,npy,color,side-by-side,ply"
    result = run(tmp_path / "a.png", "-m", models / "metric", "-o", out, "--save", kinds, "--focal", "50")
    assert result.exit_code == 0, result.output
    depth = np.load(out / "a_depth.npy")
    expected = load(models / "metric", "cpu", torch.float32).infer_image(photograph(60, 90), 56)
    assert np.allclose(depth, expected, atol=1e-4)
    stored = Image.open(out / "a_depth.png")
    codes = np.asarray(stored)
    assert codes.dtype == np.uint16 and codes.min() == 0 and codes.max() == 65535
    back = float(stored.info["dav2:offset"]) + float(stored.info["dav2:scale"]) * codes
    assert np.abs(back - depth).max() <= (depth.max() - depth.min()) / 65535
    assert np.asarray(Image.open(out / "a_color.png")).shape == (60, 90, 3)
    assert np.asarray(Image.open(out / "a_side.png")).shape == (60, 90 + 50 + 90, 3)
    header, body = (out / "a.ply").read_bytes().split(b"end_header\n")
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)])
    assert b"element vertex 5400" in header
    first = depth[0, 0] * np.array([(0.5 - 45) / 50, (0.5 - 30) / 50, 1], np.float32)
    assert np.allclose(points["xyz"][0], first) and (points["rgb"][-1] == photograph(60, 90)[-1, -1]).all()


def test_point_cloud_takes_the_focal_length_from_exif_or_says_it_is_missing(models: Path, tmp_path: Path) -> None:
    image = Image.fromarray(photograph(30, 40))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    image.save(tmp_path / "with.jpg", exif=exif)
    image.save(tmp_path / "without.jpg")
    files = (tmp_path / "with.jpg", tmp_path / "without.jpg")
    result = run(*files, "-m", models / "metric", "-o", tmp_path / "out", "--save", "ply")
    assert result.exit_code == 1 and "--focal" in result.output
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["with.ply"]


def test_wrong_options_are_named(models: Path, tmp_path: Path) -> None:
    Image.fromarray(photograph(30, 40)).save(tmp_path / "a.png")
    relative = ("-m", models / "relative")
    for arguments, message in [
        ((*relative, "--save", "tiff"), "cannot save 'tiff'"),
        ((*relative, "--save", "ply"), "needs a metric model"),
        ((*relative, "--colormap", "nope"), "no colour map 'nope'"),
        (("-m", tmp_path / "none"), "no model at"),
    ]:
        result = run(tmp_path / "a.png", "-o", tmp_path / "out", *arguments)
        assert result.exit_code == 2 and message in result.output.replace("\n", " ")


def test_lists_globs_and_folders_name_their_outputs_apart(tmp_path: Path) -> None:
    for name in ("a.png", "b.JPG", "c.txt.md", "sub/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text(f"# photographs\n{tmp_path}/a.png\n\n{tmp_path}/gone.png\n")
    found = expand([str(tmp_path / "list.txt"), str(tmp_path / "*.JPG"), str(tmp_path)])
    assert [i.name for i in found.inputs] == ["a", "b", "a_png", "b_JPG", "sub/a"]
    assert [f.path for f in found.failures] == [f"{tmp_path}/gone.png"]
    assert found.left_out == {"MD": 1, "TXT": 1}


def test_video_keeps_rate_and_size_and_colours_follow_one_range(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shift in range(5):
            frame = np.roll(photograph(48, 64), shift * 5, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    result = run(file, "-m", models / "relative", "-o", tmp_path / "out", "--save", "color,npy", "--batch", "2")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out" / "clip_color.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001) and (stream.width, stream.height) == (64, 48)
        assert sum(1 for _ in container.decode(video=0)) == 5
    assert len(list((tmp_path / "out" / "clip").glob("*_depth.npy"))) == 5


def test_running_range_moves_slowly_and_flat_maps_have_a_colour() -> None:
    moving = RunningRange(keep=0.9)
    assert moving.update(np.array([[0.0, 1.0]], np.float32)) == (0.0, 1.0)
    assert moving.update(np.array([[0.0, 11.0]], np.float32)) == (0.0, pytest.approx(2.0))
    flat = Palette("gray")(np.ones((2, 2), np.float32), 1.0, 1.0)
    assert (flat == flat[0, 0]).all()
