"""What is named on the command line is predicted, left out by kind, or named as failed; nothing leaves the folder."""

from __future__ import annotations

import http.server
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dav2.cli import build as command_line
from dav2.families.depth_anything.model import build
from dav2.maps import Maps, Quantity
from dav2.predict.infer import infer
from dav2.predict.options import Options
from dav2.predict.places import expand
from dav2.predict.run import predict


def run(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "400"}).invoke(
        command_line("predict"), ["predict", *map(str, arguments), "--size", "28", "--dtype", "fp32"]
    )


def write(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path, **options)
    return path


def outputs(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_keys_of_a_bucket_never_become_paths_outside(models: Path, tmp_path: Path, bucket: str) -> None:
    import s3fs

    system, data = s3fs.S3FileSystem(), write(tmp_path / "a.jpg").read_bytes()
    for key in (f"e/{tmp_path}/X.jpg", "e/../../Y.jpg", "e/ok.jpg", "e/x.heic"):
        system.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key=key, Body=data)
    result = run(f"{bucket}/e", "-m", models / "relative", "-o", tmp_path / "w/out", "--save", "npy")
    assert result.exit_code == 1
    assert outputs(tmp_path) == ["a.jpg", "w/out/ok_depth.npy"]
    assert "4 found = 1 predicted + 1 left out (HEIC 1) + 2 failed" in result.output


def test_a_video_and_a_folder_of_its_name_do_not_share_outputs(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip/000000.png", "CLIP.jpg", "clip.png", "clip_mp4/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [source.name for source in expand([str(tmp_path)]).inputs]
    assert len({name.casefold() for name in names}) == len(names) == 5
    video = next(source.name for source in expand([str(tmp_path)]).inputs if source.video)
    assert not any(name.startswith(f"{video}/") for name in names)


def test_a_folder_of_everything_adds_up(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name, kind in (("a.jpg", "JPEG"), ("b.jfif", "JPEG"), ("c.jpe", "JPEG"), ("d.apng", "PNG"), ("e.pnm", "PPM")):
        write(folder / name, format=kind)
    for name in ("x.heic", "y.zip", "notes.txt", "._a.jpg", "none"):
        (folder / name).write_bytes(b"\0\0\0\x20ftypheic")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "up").symlink_to(folder)
    (folder / "text.webp").write_text("no image")
    result = run(folder, "-m", models / "relative", "-o", tmp_path / "out", "--save", "npy")
    assert result.exit_code == 1, result.output
    assert "16 found = 5 predicted + 6 left out (" in result.output and "+ 5 failed" in result.output
    for bad in ("pipe.jpg: is a named pipe", "endless.png: is a device", "gone.png", "self.png", "text.webp"):
        assert bad in result.output


def test_its_own_outputs_are_not_taken_and_photographs_are_not_written_over(models: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jpg")
    save = ("--save", "png16,color,side-by-side")
    for _ in range(2):
        assert run(tmp_path, "-m", models / "relative", "-o", tmp_path, *save).exit_code == 0
    assert outputs(tmp_path) == ["a.jpg", "a_color.png", "a_depth.png", "a_side.png"]
    assert run(str(tmp_path / "*.*"), "-m", models / "relative", "-o", tmp_path, *save).exit_code == 0
    assert len(outputs(tmp_path)) == 4
    own = write(tmp_path / "own/a.jpg").with_name("a_depth.png")
    before = write(own).read_bytes()
    result = run(tmp_path / "own", "-m", models / "relative", "-o", tmp_path / "own", "--save", "png16")
    assert result.exit_code == 1 and "would overwrite the input" in result.output
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 300 + ".jpg", "too long"),
        ("foo://x", "foo:// cannot be read"),
        ("s3://", "must be s3://bucket/key"),
        ("s3://Bad_Bucket!/x", "must be s3://bucket/key"),
        ("https://host/", "must name one file"),
        ("http://127.0.0.1:9/x.jpg", "nothing answers there"),
        ("", "an empty name"),
        ("a\0b", "null byte"),
        ("/dev/zero", "is a device"),
        ("latin.txt", "UTF-8"),
        ("empty.txt", "names nothing"),
        ("none.txt", "no such file"),
        ("no/**.png", "no such file, folder or match"),
    ],
)
def test_what_cannot_be_found_is_one_named_failure(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.jpg")
    (tmp_path / "latin.txt").write_bytes("é.jpg".encode("latin-1"))
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    result = run(name, "good.jpg", "-m", models / "relative", "-o", "out", "--save", "npy")
    assert result.exit_code == 1 and words in result.output, result.output
    assert outputs(tmp_path / "out") == ["good_depth.npy"]
    assert "2 found = 1 predicted + 0 left out + 1 failed" in result.output


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_entries_of_a_list_are_found_beside_it(tmp_path: Path, encoding: str) -> None:
    for name in ("a.jpg", "sub/b c.jpg", "sub/d.jpg"):
        (tmp_path / "lists" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lists" / name).touch()
    (tmp_path / "lists/list.txt").write_text('a.jpg\n"sub/b c.jpg"\nsub/d*\n', encoding=encoding)
    found = expand([str(tmp_path / "lists/list.txt")])
    assert [Path(source.path).name for source in found.inputs] == ["a.jpg", "b c.jpg", "d.jpg"] and not found.failures


def test_two_stars_without_a_slash_and_file_addresses_are_read(tmp_path: Path) -> None:
    write(tmp_path / "x/a b.png")
    (found,) = expand([f"{tmp_path}/x/**.png"]).inputs
    (same,) = expand([f"FILE://{tmp_path}/x/a%20b.png"]).inputs
    assert found == same


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    write(tmp_path / "site/a.jpg")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "site"))

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_an_image_of_the_web_is_predicted(models: Path, tmp_path: Path, website: str) -> None:
    result = run(f"{website}/a.jpg?size=1", "-m", models / "relative", "-o", tmp_path / "out", "--save", "npy")
    assert result.exit_code == 0, result.output
    assert outputs(tmp_path / "out") == ["a_depth.npy"]


@pytest.mark.parametrize("focal", ["0", "-5", "nan", "inf"])
def test_a_focal_length_that_is_none_is_refused_once(models: Path, tmp_path: Path, focal: str) -> None:
    photograph = write(tmp_path / "a.jpg")
    result = run(photograph, "-m", models / "metric", "-o", tmp_path / "out", "--save", "ply", "--focal", focal)
    assert result.exit_code == 2 and "focal length" in result.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [(1, 2), 65_535])
def test_exif_that_makes_no_sense_is_said_and_not_used(models: Path, tmp_path: Path, value: Any) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = value
    photograph = write(tmp_path / "a.jpg", exif=exif)
    result = run(photograph, "-m", models / "metric", "-o", tmp_path / "out", "--save", "ply")
    assert result.exit_code == 1 and "makes no sense" in result.output and "--focal" in result.output


def test_predictions_that_are_not_finite_are_failures(models: Path, tmp_path: Path) -> None:
    model = build("vitn").eval()
    with torch.no_grad():
        model.decoder.head3.bias.fill_(float("nan"))
    write(tmp_path / "a.jpg")
    found = expand([str(tmp_path / "a.jpg")])
    outcome = predict(model, found.inputs, Options(tmp_path / "out", ["png16"], 28), lambda _: None)
    assert "not finite" in outcome.failures[0].reason and not outputs(tmp_path / "out")


class Small(torch.nn.Module):
    """A model that has memory for two images of one size, and none for the wide one."""

    def infer_maps(self, images: list[np.ndarray], input_size: int | None) -> list[Maps[np.ndarray]]:
        if len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if any(image.shape[1] > 10 for image in images):
            raise MemoryError
        return [Maps(Quantity.DEPTH, np.ones(image.shape[:2], np.float32)) for image in images]


def test_without_memory_the_batch_is_halved_and_then_the_image_skipped() -> None:
    images = [np.zeros((5, width, 3), np.uint8) for width in (5, 5, 5, 20, 5, 5)]
    maps = infer(Small(), images, None)  # type: ignore[arg-type]
    assert [isinstance(found, MemoryError) for found in maps] == [False, False, False, True, False, False]


def test_an_unforeseen_error_is_named_with_its_type_and_the_others_go_on(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dav2.predict import run as module

    def decode(data: bytes, name: str) -> Any:
        if name.endswith("b.jpg"):
            raise KeyError("never seen")
        return original(data, name)

    original = module.decode
    monkeypatch.setattr(module, "decode", decode)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write(tmp_path / "in" / name)
    result = run(tmp_path / "in", "-m", models / "relative", "-o", tmp_path / "out", "--save", "npy")
    assert result.exit_code == 1 and "b.jpg: unforeseen KeyError: 'never seen'" in result.output
    assert outputs(tmp_path / "out") == ["a_depth.npy", "c_depth.npy"]


def test_a_file_of_more_bytes_than_allowed_is_refused_without_reading_them(tmp_path: Path) -> None:
    from dav2.files import read_bounded

    with pytest.raises(ValueError, match="more than the 4 bytes"):
        read_bounded(io.BytesIO(b"12345"), 4, "a")


def test_a_picture_of_99_megapixels_takes_less_than_two_and_a_half_gigabytes(models: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (9_900, 10_000), (90, 120, 150, 200)).save(tmp_path / "large.png", compress_level=1)
    program = (
        "import sys; from dav2.cli import main; from dav2.memory import peak_megabytes\n"
        "sys.argv[0] = 'dav2'\n"
        "try: main()\n"
        "except SystemExit as left: print(peak_megabytes()); sys.exit(left.code)\n"
    )
    given = ["large.png", "-m", str(models / "relative"), "--size", "56", "-o", "out"]
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", *given], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 2500
    assert (tmp_path / "out/large_depth.png").is_file()
