"""Small files that were once taken wrongly: dropped in silence, fatal to their neighbours, or read for ever.

``python -m tests.corpus.make FOLDER`` writes them. Each has a fate: a folder of them is read past the bad ones, and
what becomes of every file is known.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SOUND, FAILED, LEFT_OUT = "sound", "failed", "left out"
"""What becomes of a file: it is used, it is named with a reason, or it is counted by its kind."""


def photograph(seed: int) -> Image.Image:
    """40 × 56 pixels of noise, another for every seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def encoded(seed: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A photograph as a file of Pillow's ``kind``."""
    buffer = io.BytesIO()
    photograph(seed).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def header_only_png(width: int, height: int) -> bytes:
    """A PNG whose header promises what its data do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def bomb_gif() -> bytes:
    """A GIF of 65,535 × 65,535 pixels in 35 bytes, which Pillow refuses with an error of its own."""
    screen = struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6)
    image = b"\x2c" + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
    return b"GIF89a" + screen + image + b"\x02\x02\x44\x01\x00\x3b"


def with_texts() -> bytes:
    """A PNG with three megabytes of text, which Pillow takes for damage."""
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "x" * 3_000_000, zip=True)
    return encoded(10, "PNG", pnginfo=words)


def two_focal_lengths() -> bytes:
    """A JPEG whose EXIF gives its focal length as two numbers."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = (28, 35)
    return encoded(11, "JPEG", exif=exif)


PHOTOGRAPHS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "photo.jpg": (SOUND, lambda: encoded(0, "JPEG")),
    "photo.jfif": (SOUND, lambda: encoded(1, "JPEG")),
    "photo.jpe": (SOUND, lambda: encoded(2, "JPEG")),
    "photo.apng": (SOUND, lambda: encoded(3, "PNG")),
    "photo.mpo": (SOUND, lambda: encoded(4, "JPEG")),
    "photo.pnm": (SOUND, lambda: encoded(5, "PPM")),
    "photo.pgm": (SOUND, lambda: encoded(6, "PPM", "L")),
    "photo.pbm": (SOUND, lambda: encoded(7, "PPM", "1")),
    "photo.j2k": (SOUND, lambda: encoded(8, "JPEG2000", no_jp2=True)),
    "big.tiff": (SOUND, lambda: encoded(9, "TIFF", big_tiff=True)),
    "words.png": (SOUND, with_texts),
    "focal.jpg": (SOUND, two_focal_lengths),
    "bomb.gif": (FAILED, bomb_gif),
    "huge.png": (FAILED, lambda: header_only_png(60_000, 60_000)),
    "hollow.png": (FAILED, lambda: header_only_png(50, 50)),
    "cut.jpg": (FAILED, lambda: encoded(12, "JPEG")[:700]),
    "empty.png": (FAILED, bytes),
    "page.jpg": (FAILED, lambda: b"<html>not found</html>"),
    "heif.jpg": (FAILED, lambda: b"\0\0\0\x20ftypheic" + bytes(16)),
    "photo.heic": (LEFT_OUT, lambda: b"\0\0\0\x20ftypheic" + bytes(16)),
    "._photo.jpg": (LEFT_OUT, lambda: b"\0\5\x16\7"),
    "notes.txt": (LEFT_OUT, lambda: b"photo.jpg\n"),
    "readme": (LEFT_OUT, bytes),
}
"""Name → fate and content of plain files."""
SPECIAL: dict[str, tuple[str, Callable[[Path], None]]] = {
    "pipe.jpg": (FAILED, os.mkfifo),
    "endless.jpg": (FAILED, lambda path: path.symlink_to("/dev/zero")),
    "gone.jpg": (FAILED, lambda path: path.symlink_to("nowhere.jpg")),
    "self.jpg": (FAILED, lambda path: path.symlink_to("self.jpg")),
    "up": (LEFT_OUT, lambda path: path.symlink_to(path.parent)),
}
"""Name → fate and maker of what is no plain file."""
FATES = {name: fate for name, (fate, _) in {**PHOTOGRAPHS, **SPECIAL}.items()}


def make_photographs(folder: Path) -> None:
    """The corpus as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, content) in PHOTOGRAPHS.items():
        (folder / name).write_bytes(content())
    for name, (_, make) in SPECIAL.items():
        make(folder / name)


def make_archives(folder: Path) -> None:
    """Archives with one sound photograph between damaged members, and archives that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "mixed.tar", "w") as archive:
        for name, data in (("a/sound.jpg", encoded(20, "JPEG")), ("a/cut.jpg", b"\xff\xd8\xff"), ("../out.jpg", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("a/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
    with zipfile.ZipFile(folder / "mixed.zip", "w") as packed:
        packed.writestr("b/sound.jpg", encoded(21, "JPEG"))
        packed.writestr("/b/out.jpg", b"x")
    (folder / "garbage.tar.bz2").write_bytes(b"no archive")
    (folder / "garbage.zip").write_bytes(b"PK no archive")
    (folder / "garbage.tar").write_bytes(b"x" * 1024)


if __name__ == "__main__":
    make_photographs(Path(sys.argv[1]) / "photographs")
    make_archives(Path(sys.argv[1]) / "archives")
