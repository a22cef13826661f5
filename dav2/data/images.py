"""Image bytes from anywhere → upright sRGB pixels, or a :class:`FrameError` that says why not.

The format is told by the first bytes, never by the file name: data sets hold PNG and GIF under ``.JPEG`` and WebP
where JPEG is promised. Only the decoders named here are ever started. The size in the header is checked before any
pixel is decoded. EXIF orientation is applied here, once; whoever stores the pixels must not store the tag with them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

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

from dav2.data.frame import FrameError

MAX_PIXELS = 100_000_000
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
    (b"II*\0", b"", "TIFF", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", b"", "TIFF", TiffImagePlugin.TiffImageFile),
    (b"P5", b"", "PGM", PpmImagePlugin.PpmImageFile),
    (b"P6", b"", "PPM", PpmImagePlugin.PpmImageFile),
    (b"\0\0\0\x0cjP  ", b"", "JPEG 2000", Jpeg2KImagePlugin.Jpeg2KImageFile),
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
# What Pillow's decoders raise on damaged data, each of them seen; anything else is a fault of ours and must surface.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
           OverflowError, MemoryError)  # fmt: skip


class Decoded(NamedTuple):
    """An upright image.

    Attributes:
        rgb: uint8 (H, W, 3), sRGB.
        upright_jpeg: the bytes that were decoded, where they are a JPEG that any reader decodes to ``rgb`` (no EXIF
            rotation, not CMYK) and that may therefore be stored as they are; else ``None``.
    """

    rgb: NDArray[np.uint8]
    upright_jpeg: bytes | None


def sniff(data: bytes) -> str | None:
    """Name of the image format that ``data`` begins with, or ``None``."""
    return next((label for head, brand, label, _ in _FORMATS if _matches(data, head, brand)), None)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file completely.

    Grey, palette and CMYK become RGB; transparency is laid on white; of 16-bit samples the high byte is kept.

    Args:
        data: the whole file.
        name: what to call it in an error message.
        max_pixels: an image whose header promises more is refused before it is decoded.

    Raises:
        FrameError: not an image of a known format, damaged, cut short, too large, or of a kind without a defined
            display range (float and 32-bit samples).
    """
    image = _open(data, name)
    width, height = image.size
    if width * height > max_pixels:
        raise FrameError(f"{name}: {width} × {height} pixels, more than max_pixels = {max_pixels}")
    pixels = _fast_jpeg(image, data)
    if pixels is None:
        pixels = _strict(image, name)
    # After decoding, because some formats carry EXIF behind the pixels and TIFF is turned by its own decoder.
    orientation = _orientation(image)
    turned = orientation in _TURNS
    if turned:
        transposed, flipped = _TURNS[orientation]
        pixels = np.ascontiguousarray(np.flip(pixels.swapaxes(0, 1) if transposed else pixels, flipped))
    keep = data.startswith(JPEG_MAGIC) and not turned and image.mode in ("RGB", "L")
    return Decoded(pixels, data if keep else None)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode uint8 (H, W, 3) as a baseline JPEG.

    Chroma is kept at full resolution: halving it would soften the very edges that a depth model is to find.
    """
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_png(array: NDArray[Any], *, level: int = 3) -> bytes:
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
            try:
                return decoder(io.BytesIO(data), name)
            except _DAMAGE as error:
                raise FrameError(f"{name}: damaged {label} header: {_text(error)}") from error
    if data[4:12] == b"ftypheic" or data[4:8] == b"ftyp":
        raise FrameError(f"{name}: HEIF image; convert it to JPEG or PNG")
    raise FrameError(f"{name}: not an image of a known format (begins with {data[:8].hex(' ')})")


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


def _strict(image: ImageFile.ImageFile, name: str) -> NDArray[np.uint8]:
    """Pixels of any image through Pillow, which notices where data ends too early."""
    try:
        image.load()
    except _DAMAGE as error:
        raise FrameError(f"{name}: damaged {image.format} image: {_text(error)}") from error
    return np.array(_to_rgb(image, name))


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1 to 8; damaged or absurd EXIF counts as upright, as every viewer treats it."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    mode = image.mode
    if mode == "RGB":
        return image
    if mode in ("I", "F") or mode.startswith("I;"):
        values = np.asarray(image)
        if mode == "F" or (values.size and not 0 <= values.min() <= values.max() <= 65535):
            raise FrameError(f"{name}: {mode} samples have no defined display range; convert it to 8 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
