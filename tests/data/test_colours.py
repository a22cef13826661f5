"""Colours come out as they were meant: by their profile, on white where clear, with the bits that they have."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from dav2.data.frame import FrameError
from dav2.data.images import LARGE, decode

NOISE = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)


def saved(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def wide_gamut() -> bytes:
    """A display profile with the primaries of ProPhoto and a gamma of 1.8."""
    tags = {
        b"rXYZ": b"XYZ \0\0\0\0" + fixed(0.7977) + fixed(0.2880) + fixed(0.0),
        b"gXYZ": b"XYZ \0\0\0\0" + fixed(0.1352) + fixed(0.7119) + fixed(0.0),
        b"bXYZ": b"XYZ \0\0\0\0" + fixed(0.0313) + fixed(0.0001) + fixed(0.8249),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642) + fixed(1.0) + fixed(0.8249),
        **{name: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + b"\0\0" for name in (b"rTRC", b"gTRC")},
        b"bTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + b"\0\0",
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
    }
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_wide_gamut_becomes_srgb(kind: str) -> None:
    flat = np.full((16, 16, 3), (60, 160, 90), np.uint8)
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    decoded = decode(saved(flat, kind, icc_profile=wide_gamut(), **options), "a")
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut()))
    expected = ImageCms.profileToProfile(
        Image.fromarray(flat),
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert np.abs(decoded.rgb.astype(int) - np.asarray(expected)).max() <= 3
    assert np.abs(decoded.rgb.astype(int) - flat).max() > 30
    assert decoded.upright_jpeg is None and decoded.remarks == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_srgb_profile_changes_nothing_and_a_jpeg_keeps_its_bytes(kind: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = saved(NOISE, kind, icc_profile=profile)
    decoded = decode(data, "a")
    np.testing.assert_array_equal(decoded.rgb, decode(saved(NOISE, kind), "a").rgb)
    assert decoded.upright_jpeg == (data if kind == "JPEG" else None)


@pytest.mark.parametrize("profile", [b"no profile", wide_gamut()[:200], b"\0" * 400])
def test_a_damaged_profile_is_ignored_with_a_word(profile: bytes) -> None:
    decoded = decode(saved(NOISE, icc_profile=profile), "a")
    np.testing.assert_array_equal(decoded.rgb, NOISE)
    assert "profile" in decoded.remarks[0]


def test_transparency_keeps_its_place_when_colours_are_converted() -> None:
    rgba = np.dstack([NOISE, np.where(np.arange(40) < 20, 0, 255).astype(np.uint8)[None].repeat(24, 0)])
    decoded = decode(saved(rgba, icc_profile=wide_gamut()), "a").rgb
    assert (decoded[:, :20] == 255).all() and (decoded[:, 20:] != NOISE[:, 20:]).any()


def test_one_clear_colour_is_laid_on_white() -> None:
    picture = NOISE.copy()
    picture[:3] = (10, 20, 30)
    decoded = decode(saved(picture, transparency=(10, 20, 30)), "a").rgb
    assert (decoded[:3] == 255).all()
    np.testing.assert_array_equal(decoded[3:], picture[3:])
    grey = np.full((8, 8), 5000, np.uint16)
    assert (decode(with_chunk(saved(grey), b"tRNS", struct.pack(">H", 5000)), "a").rgb == 255).all()


ADOBE_TO_XYZ = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
P3_TO_XYZ = np.array([[0.48657, 0.26567, 0.19822], [0.22897, 0.69174, 0.07929], [0.0, 0.04511, 1.04394]])
XYZ_TO_SRGB = np.array([[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]])
STORED = ((200, 40, 40), (60, 160, 90), (128, 128, 128))


def in_srgb(codes: tuple[int, ...], to_xyz: np.ndarray, gamma: float | None) -> np.ndarray:
    """Codes of a space as sRGB codes, by the standards' own matrices and curves, clipped."""
    share = np.array(codes) / 255
    linear = share**gamma if gamma else np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    light = (XYZ_TO_SRGB @ to_xyz @ linear).clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def adobe_exif(index: bytes | None = b"R03", space: int = 0xFFFF) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index.decode(), 2: b"0100"}
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [adobe_exif(), adobe_exif(None, 2)], ids=["index", "space"])
def test_a_camera_that_says_adobe_rgb_by_exif_alone_is_believed(kind: str, exif: bytes) -> None:
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    for stored in STORED:
        decoded = decode(saved(np.full((16, 16, 3), stored, np.uint8), kind, exif=exif, **options), "a")
        assert np.abs(decoded.rgb[8, 8] - in_srgb(stored, ADOBE_TO_XYZ, 563 / 256)).max() <= 3
    assert decoded.upright_jpeg is None, "other readers take it for sRGB"


@pytest.mark.parametrize("index", [b"R98", b"THM", b"junk"])
def test_other_words_in_exif_leave_the_colours_as_they_are(index: bytes) -> None:
    np.testing.assert_array_equal(decode(saved(NOISE, exif=adobe_exif(index, 1)), "a").rgb, NOISE)


def test_a_png_says_its_colours_by_numbers_too() -> None:
    flat = np.full((16, 16, 3), (60, 160, 90), np.uint8)
    p3 = decode(with_chunk(saved(flat), b"cICP", bytes([12, 13, 0, 1])), "a").rgb[8, 8]
    assert np.abs(p3 - in_srgb((60, 160, 90), P3_TO_XYZ, None)).max() <= 3
    np.testing.assert_array_equal(decode(with_chunk(saved(flat), b"cICP", bytes([1, 13, 0, 1])), "a").rgb, flat)
    places = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
    adobe = with_chunk(with_chunk(saved(flat), b"gAMA", struct.pack(">I", 45470)), b"cHRM", places)
    assert np.abs(decode(adobe, "a").rgb[8, 8] - in_srgb((60, 160, 90), ADOBE_TO_XYZ, 2.2)).max() <= 3
    nonsense = with_chunk(with_chunk(saved(flat), b"gAMA", bytes(4)), b"cHRM", bytes(32))
    np.testing.assert_array_equal(decode(nonsense, "a").rgb, flat)


@pytest.mark.parametrize(("transfer", "curve"), [(16, "PQ"), (18, "HLG")])
def test_stills_of_high_range_are_refused_as_videos_are(transfer: int, curve: str) -> None:
    said = rf"x: high dynamic range \({curve}\); convert it to SDR"
    with pytest.raises(FrameError, match=said):
        decode(with_chunk(saved(NOISE), b"cICP", bytes([9, transfer, 0, 1])), "x")
    avif = saved(NOISE, "AVIF")
    at = avif.index(b"colrnclx") + 8
    with pytest.raises(FrameError, match=said):
        decode(avif[:at] + struct.pack(">2H", 9, transfer) + avif[at + 4 :], "x")
    tagged = bytearray(wide_gamut())
    entry = tagged.index(b"cprt")
    tagged[entry : entry + 4] = b"cicp"
    place = struct.unpack_from(">I", tagged, entry + 4)[0]
    tagged[place : place + 12] = b"cicp\0\0\0\0" + bytes([9, transfer, 0, 1])
    with pytest.raises(FrameError, match=said):
        decode(saved(NOISE, "JPEG", icc_profile=bytes(tagged)), "x")


def test_of_a_picture_with_a_gain_map_the_ordinary_one_is_taken() -> None:
    base, gains = saved(NOISE, "JPEG", quality=95), saved(NOISE[::2, ::2], "JPEG")
    np.testing.assert_array_equal(decode(base + gains, "a").rgb, decode(base, "a").rgb)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_large_picture_is_converted_in_parts_to_the_same_pixels(mode: str) -> None:
    rows = -(-LARGE // 8000) + 3
    ramp = np.tile(np.arange(8000, dtype=np.uint8)[None, :], (rows, 1))
    tile = Image.fromarray(ramp).convert(mode)
    if mode == "RGBA":
        tile.putalpha(90)
    buffer = io.BytesIO()
    tile.save(buffer, "PNG", compress_level=1, icc_profile=wide_gamut() if mode == "RGB" else None)
    found = decode(buffer.getvalue(), "a")
    edge = io.BytesIO()
    tile.crop((0, 0, 8000, 5)).save(edge, "PNG", icc_profile=wide_gamut() if mode == "RGB" else None)
    expected = decode(edge.getvalue(), "a")
    assert found.rgb.shape == (rows, 8000, 3) and found.remarks == expected.remarks
    assert (found.rgb == expected.rgb[0]).all()


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:33] + chunk + data[33:]


def test_twelve_bits_in_sixteen_are_shown_where_the_file_says_so_and_told_where_not() -> None:
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    silent = decode(saved(values), "a")
    assert silent.rgb.max() == 15 and "nearly black" in silent.remarks[0]
    told = decode(with_chunk(saved(values), b"sBIT", b"\x0c"), "a")
    np.testing.assert_array_equal(told.rgb[..., 0], values >> 4)
    assert told.remarks == ()
    full = decode(with_chunk(saved(values * 16), b"sBIT", b"\x0c"), "a")
    np.testing.assert_array_equal(full.rgb[..., 0], values >> 4)


@pytest.mark.parametrize("packed", [False, True])
def test_a_png_with_much_text_is_decoded(packed: bool) -> None:
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "x" * 3_000_000, zip=packed)
    np.testing.assert_array_equal(decode(saved(NOISE, pnginfo=words), "a").rgb, NOISE)
    profile = np.random.default_rng(1).bytes(3_000_000)
    np.testing.assert_array_equal(decode(saved(NOISE, icc_profile=profile), "a").rgb, NOISE)


def test_every_kind_that_folders_are_searched_for_is_decoded() -> None:
    assert decode(saved(NOISE, "TIFF", big_tiff=True), "a").rgb.shape == NOISE.shape
    assert decode(saved(NOISE, "DIB"), "a").rgb.shape == NOISE.shape
    assert decode(saved(NOISE, "JPEG2000", no_jp2=True), "a").rgb.shape == NOISE.shape
    for plain in (b"P1\n2 2\n1 0 0 1\n", b"P2\n2 2\n255\n1 2 3 4\n", b"P3\n2 2\n255\n" + b"1 2 3 " * 4):
        assert decode(plain, "a").rgb.shape == (2, 2, 3)
    assert decode(b"P4\n8 1\n\xf0", "a").rgb.shape == (1, 8, 3)
