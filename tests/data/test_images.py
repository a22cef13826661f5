"""Images of every kind that public data sets hold come out upright and RGB; damaged ones are named and refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from dav2.data import png
from dav2.data.frame import FrameError
from dav2.data.images import decode, encode_jpeg, encode_png, sniff


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """A ramp in every channel: no two corners alike, so a wrong rotation cannot pass."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9, columns * 6, (rows + columns) * 3], axis=-1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_to_the_exact_pixels(kind: str) -> None:
    decoded = decode(saved(Image.fromarray(picture()), kind), "a.jpg")
    np.testing.assert_array_equal(decoded.rgb, picture())
    assert decoded.upright_jpeg is None


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("AVIF", {"quality": 100})])
def test_modern_formats_decode(kind: str, options: dict[str, Any]) -> None:
    decoded = decode(saved(Image.fromarray(picture()), kind, **options), "a.jpg")
    assert np.abs(decoded.rgb.astype(int) - picture()).max() <= 6


def test_an_upright_jpeg_keeps_its_own_bytes() -> None:
    data = encode_jpeg(picture(), 90)
    decoded = decode(data, "a.jpg")
    assert decoded.upright_jpeg == data
    assert np.abs(decoded.rgb.astype(int) - picture()).max() < 16


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_exactly_once(kind: str, orientation: int) -> None:
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](picture())  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    np.testing.assert_array_equal(decode(data, "a").rgb, picture())


def test_a_rotated_jpeg_is_turned_upright_and_its_bytes_are_not_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(saved(Image.fromarray(np.rot90(picture())), "JPEG", exif=exif, quality=98, subsampling=0), "a.jpg")
    assert decoded.upright_jpeg is None
    assert decoded.rgb.shape == picture().shape
    assert np.abs(decoded.rgb.astype(int) - picture()).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_of_every_orientation_and_kind_have_the_pixels_that_pillow_gives(mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for options in ({"quality": 60}, {"quality": 95, "progressive": True}, {"quality": 80, "subsampling": 0}):
        data = saved(Image.fromarray(picture(33, 47)).convert(mode), "JPEG", exif=exif, **options)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        np.testing.assert_array_equal(decode(data, "a.jpg").rgb, np.asarray(expected))


def test_the_pixels_can_be_written_to() -> None:
    for kind in ("JPEG", "PNG"):
        decode(saved(Image.fromarray(picture()), kind), "a").rgb[0, 0] = 7


def test_damaged_exif_counts_as_upright() -> None:
    data = saved(Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert decode(data, "a.jpg").rgb.shape == picture().shape


def test_a_format_is_told_by_its_bytes_not_by_its_name() -> None:
    written = encode_png(picture())
    assert sniff(written) == "PNG"
    np.testing.assert_array_equal(decode(written, "n01440764_1.JPEG").rgb, picture())


def test_cmyk_becomes_rgb_and_is_not_kept_as_it_is() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    decoded = decode(saved(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=98), "a.jpg")
    assert decoded.upright_jpeg is None
    assert np.abs(decoded.rgb.astype(int) - flat).max() <= 4


def test_a_palette_is_expanded_and_transparency_is_laid_on_white() -> None:
    grey = Image.fromarray(np.full((8, 8), 80, np.uint8))
    np.testing.assert_array_equal(decode(saved(grey.convert("P"), "GIF"), "a").rgb, np.full((8, 8, 3), 80))
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (10, 20, 30, 255)
    rgb = decode(saved(Image.fromarray(clear), "PNG"), "a").rgb
    np.testing.assert_array_equal(rgb[0, 0], (10, 20, 30))
    np.testing.assert_array_equal(rgb[7, 7], (255, 255, 255))
    palette = Image.fromarray(clear[..., 0]).convert("P")
    assert (decode(saved(palette, "PNG", transparency=palette.getpixel((0, 7))), "a").rgb[7, 7] == 255).all()


@pytest.mark.parametrize("colours", [None, 0, 2])
def test_numbers_without_a_colour_are_damage_and_not_black(colours: int | None) -> None:
    drawn = saved(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 5 * 50).quantize(5), "PNG")
    kinds = {kind: drawn[start:end] for kind, start, end in png.chunks(drawn)}
    assert decode(drawn, "a.png").rgb.max() == 200
    content = b"PLTE" + kinds[b"PLTE"][8 : 8 + 3 * (colours or 0)]
    palette = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    cut = png.MAGIC + kinds[b"IHDR"] + (b"" if colours is None else palette) + kinds[b"IDAT"] + kinds[b"IEND"]
    with pytest.raises(
        FrameError, match=f"a.png: damaged PNG image: pixels have colour 4 of a palette of {colours or 0}"
    ):
        decode(cut, "a.png")


def test_16_bit_samples_keep_their_high_byte() -> None:
    values = (np.arange(64, dtype=np.uint16).reshape(8, 8) << 10) + 77
    expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode(encode_png(values), "a.png").rgb, expected)


def test_float_samples_are_refused() -> None:
    with pytest.raises(FrameError, match="display range"):
        decode(saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "a.tif")


def test_a_grey_jpeg_is_kept() -> None:
    data = saved(Image.fromarray(picture()[..., 0]), "JPEG", quality=95)
    decoded = decode(data, "a.jpg")
    assert decoded.rgb.shape == (24, 40, 3)
    assert decoded.upright_jpeg == data


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.8])
def test_a_file_cut_short_is_refused_and_named(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    with pytest.raises(FrameError, match=r"train/x\.jpg"):
        decode(data[: int(len(data) * share)], "train/x.jpg")


def test_a_bomb_is_refused_by_its_header() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
    with pytest.raises(FrameError, match="60000 × 60000 pixels, more than max_pixels"):
        decode(data, "bomb.png")
    with pytest.raises(FrameError, match="max_pixels = 900"):
        decode(encode_png(picture(31, 30)), "a.png", max_pixels=900)
    assert decode(encode_png(picture(30, 30)), "a.png", max_pixels=900).rgb.shape == (30, 30, 3)


@pytest.mark.parametrize("data", [b"<html>404</html>", b"%!PS-Adobe", b"\0" * 64, b"\0\0\0\x20ftypheic\0\0\0\0"])
def test_what_is_not_a_known_image_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError, match=r"a\.jpg"):
        decode(data, "a.jpg")


def test_random_damage_is_refused_or_decoded_but_never_surfaces_as_another_error() -> None:
    random = np.random.default_rng(1)
    originals = [
        saved(Image.fromarray(picture()), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
    ]
    for round_ in range(400):
        data = bytearray(originals[round_ % len(originals)])
        for _ in range(int(random.integers(1, 8))):
            data[int(random.integers(len(data)))] = int(random.integers(256))
        try:
            decoded = decode(bytes(data), "a", max_pixels=1_000_000)
        except FrameError:
            continue
        assert decoded.rgb.dtype == np.uint8
        assert decoded.rgb.ndim == 3
