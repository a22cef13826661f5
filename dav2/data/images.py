"""Image bytes from anywhere → upright sRGB pixels, or a :class:`FrameError` that says why not.

The format is told by the first bytes, never by the file name: data sets hold PNG and GIF under ``.JPEG`` and WebP
where JPEG is promised. Only the decoders named here are ever started. The size in the header is checked before any
pixel is decoded. EXIF orientation is applied here, once; whoever stores the pixels must not store the tag with them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dav2.data import png, spaces
from dav2.data.blocks import row_blocks
from dav2.data.colour import check_palette, in_srgb, to_rgb
from dav2.data.frame import FrameError

MAX_PIXELS = 100_000_000
LARGE = 25_000_000
"""Pixels from which an image is converted in parts, since each copy of it takes a gigabyte."""
ORIENTATION_TAG = 0x0112

JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
# (first bytes, bytes 8 to 12 or nothing, name, decoder)
_FORMATS: tuple[tuple[bytes, bytes, str, Callable[..., ImageFile.ImageFile]], ...] = (
    (JPEG_MAGIC, b"", "JPEG", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", b"", "PNG", PngImagePlugin.PngImageFile),
    (b"RIFF", b"WEBP", "WebP", WebPImagePlugin.WebPImageFile),
    (b"GIF8", b"", "GIF", GifImagePlugin.GifImageFile),
    (b"BM", b"", "BMP", BmpImagePlugin.BmpImageFile),
    (b"\x28\0\0\0", b"", "DIB", BmpImagePlugin.DibImageFile),
    (b"II*\0", b"", "TIFF", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", b"", "TIFF", TiffImagePlugin.TiffImageFile),
    (b"II+\0", b"", "BigTIFF", TiffImagePlugin.TiffImageFile),
    (b"MM\0+", b"", "BigTIFF", TiffImagePlugin.TiffImageFile),
    *(
        (b"P%d" % kind, b"", name, PpmImagePlugin.PpmImageFile)
        for kind, name in enumerate(("PBM", "PGM", "PPM", "PBM", "PGM", "PPM"), 1)
    ),
    (b"\0\0\0\x0cjP  ", b"", "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"\xff\x4f\xff\x51", b"", "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile),
    (b"\0\0\0", b"avif", "AVIF", AvifImagePlugin.AvifImageFile),
    (b"\0\0\0", b"avis", "AVIF", AvifImagePlugin.AvifImageFile),
)
# EXIF orientation → whether rows and columns change places, and which axes are then reversed.
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".jpx", ".j2k", ".j2c", ".jpf", ".avif", ".avifs"),
)
"""File names, in lower case, under which folders are searched for images: those of every format that is decoded."""


class Decoded(NamedTuple):
    """An upright image.

    Attributes:
        rgb: uint8 (H, W, 3), sRGB.
        upright_jpeg: the bytes that were decoded, where they are a JPEG that any reader decodes to ``rgb`` (no EXIF
            rotation, not CMYK, no colours but sRGB) and that may therefore be stored as they are; else ``None``.
        remarks: what a person should hear of, one sentence each, such as a colour profile that was ignored.
    """

    rgb: NDArray[np.uint8]
    upright_jpeg: bytes | None
    remarks: tuple[str, ...] = ()


def sniff(data: bytes) -> str | None:
    """Name of the image format that ``data`` begins with, or ``None``."""
    return next((label for head, brand, label, _ in _FORMATS if _matches(data, head, brand)), None)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file completely.

    Grey, palette and CMYK become RGB, colours of any space that the file names sRGB; transparency is laid on white; of
    16-bit samples the high byte is kept, or the highest of the bits that a PNG says they have.

    Args:
        data: the whole file.
        name: what to call it in an error message.
        max_pixels: an image whose header promises more is refused before it is decoded.

    Raises:
        FrameError: not an image of a known format, damaged, cut short, too large, or of a kind without a defined
            display range (float and 32-bit samples, high dynamic range).
        MemoryError: there is not enough memory for it.
    """
    try:
        return _checked(data, name, max_pixels)
    except FrameError:
        # Pillow takes a PNG with long texts or a long or odd profile for damaged, whose pixels are sound.
        spared = png.without_words(data)
        if len(spared) == len(data):
            raise
    found = _checked(spared, name, max_pixels)
    return found._replace(remarks=(*found.remarks, "its texts and colour profile are too long or damaged and not used"))


def _checked(data: bytes, name: str, max_pixels: int) -> Decoded:
    image = _open(data, name)
    width, height = image.size
    if width * height > max_pixels:
        raise FrameError(f"{name}: {width} × {height} pixels, more than max_pixels = {max_pixels}")
    with _damage(name, f"damaged {image.format} image"):
        if curve := spaces.high_range(image, data):
            raise FrameError(f"{name}: high dynamic range ({curve}); convert it to SDR (sRGB) first")
        return _decoded(image, data, name)


def _decoded(image: ImageFile.ImageFile, data: bytes, name: str) -> Decoded:
    remarks: list[str] = []
    fast = _fast_jpeg(image, data)
    if fast is None:
        image.load()
        check_palette(image, name, remarks)
    profile, mode = spaces.stated(image, data), image.mode
    pixels = fast
    if profile is not None or fast is None:
        before = Image.fromarray(fast) if fast is not None else image
        shown = _in_parts(before, profile, data, name, remarks)
        pixels = fast if shown is None else shown
    assert pixels is not None
    # After decoding, because some formats carry EXIF behind the pixels and TIFF is turned by its own decoder.
    orientation = _orientation(image)
    turned = orientation in _TURNS
    as_shown = pixels is fast
    if turned:
        transposed, flipped = _TURNS[orientation]
        pixels = np.ascontiguousarray(np.flip(pixels.swapaxes(0, 1) if transposed else pixels, flipped))
    keep = data.startswith(JPEG_MAGIC) and not turned and mode in ("RGB", "L") and (as_shown or profile is None)
    return Decoded(pixels, data if keep else None, tuple(remarks))


def _in_parts(
    image: Image.Image, profile: bytes | None, data: bytes, name: str, remarks: list[str]
) -> NDArray[np.uint8] | None:
    """A loaded image in sRGB, some rows at a time where it is large; ``None`` for a JPEG that is in it already.

    Samples of 16 bits are judged, and so converted, as a whole.
    """
    width, height = image.size
    deep = image.mode.startswith(("I", "F")) or (data.startswith(png.MAGIC) and png.sample_depth(data) == 16)
    whole = width * height <= LARGE or deep
    pixels, changed = np.empty((height, width, 3), np.uint8), not data.startswith(JPEG_MAGIC)
    for rows in [slice(0, height)] if whole else row_blocks(height, width):
        part = image if whole else image.crop((0, rows.start, width, min(rows.stop, height)))
        shown = in_srgb(part, profile, remarks)
        changed = changed or shown is not part or part.mode != "RGB"
        if changed or not whole:
            pixels[rows] = np.asarray(to_rgb(shown, data, name, remarks))
    remarks[:] = dict.fromkeys(remarks)
    return pixels if changed else None


def pixels_of(data: bytes, name: str) -> int:
    """Pixels that the header of an image file promises.

    Raises:
        FrameError: not an image of a known format.
    """
    try:
        image = _open(data, name)
    except FrameError:
        image = _open(png.without_words(data), name)
    return image.width * image.height


def exif(data: bytes, name: str) -> Image.Exif:
    """The EXIF data of an image file; empty where it has none, or damaged ones.

    Raises:
        FrameError: not an image of a known format.
    """
    image = _open(data, name)
    try:
        return image.getexif()
    except Exception:
        return Image.Exif()


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode uint8 (H, W, 3) as a baseline JPEG.

    Chroma is kept at full resolution: halving it would soften the very edges that a depth model is to find.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(array: NDArray[np.generic], *, level: int = 3) -> bytes:
    """Encode uint8 (H, W, 3), uint8 (H, W) or uint16 (H, W) as a lossless PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _matches(data: bytes, head: bytes, brand: bytes) -> bool:
    return data.startswith(head) and (not brand or data[8:12] == brand)


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header only."""
    if not data:
        raise FrameError(f"{name}: empty file")
    for head, brand, label, decoder in _FORMATS:
        if _matches(data, head, brand):
            with _damage(name, f"damaged {label} header"):
                return decoder(io.BytesIO(data), name)
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        raise FrameError(f"{name}: HEIF image; convert it to JPEG or PNG")
    raise FrameError(f"{name}: not an image of a known format (begins with {data[:8].hex(' ')})")


@contextlib.contextmanager
def _damage(name: str, what: str) -> Iterator[None]:
    """Whatever a decoder raises is the file's fault: of all that damage can bring up no list is complete."""
    try:
        yield
    except (FrameError, MemoryError):
        raise
    except Exception as error:
        raise FrameError(f"{name}: {what}: {_text(error)}") from error


def _fast_jpeg(image: ImageFile.ImageFile, data: bytes) -> NDArray[np.uint8] | None:
    """Pixels of an ordinary JPEG through OpenCV: the same library underneath, the same pixels, half the time.

    ``None`` for CMYK and for a file without its end marker: OpenCV fills what is missing with grey and says nothing.
    """
    if not data.startswith(JPEG_MAGIC) or image.mode not in ("RGB", "L") or JPEG_END not in data[-32:]:
        return None
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1 to 8; damaged or absurd EXIF counts as upright, as every viewer treats it."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
