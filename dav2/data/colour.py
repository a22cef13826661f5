"""Colours: pixels of any mode, in any space that a profile describes → 8-bit sRGB."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dav2.data import png
from dav2.data.frame import FrameError

CLOSE = 2
"""Codes by which a transform may move any colour and still count as none; most files say sRGB, each a little else."""
DARK = 16
"""A 16-bit image none of whose high bytes reaches this holds samples of 12 bits or fewer, or next to no light."""
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab ": "LAB"}


class ProfileError(ValueError):
    """A colour profile that cannot be followed."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB, mode RGB; ``None`` where the profile is sRGB already, near enough.

    Args:
        image: mode RGB, L, CMYK or LAB; others have no profile of their own here.

    Raises:
        ProfileError: the profile is damaged, or of another kind of colour than the image.
    """
    transform = _transform(profile, image.mode)
    if transform is None:
        return None
    try:
        return ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, ValueError, OSError) as error:
        raise ProfileError(str(error)) from None


@functools.lru_cache(64)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of one profile, made once; ``None`` where it would change next to nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space
        if _SPACES.get(space) != mode:
            raise ProfileError(f"it is for {space.strip()} colours, the image is {mode}")
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB", intent, flags)
        sample = _sample(mode)
        if sample is None:
            return transform
        moved = np.asarray(ImageCms.applyTransform(sample, transform)).astype(int) - np.asarray(sample.convert("RGB"))
        return transform if np.abs(moved).max() > CLOSE else None
    except (ImageCms.PyCMSError, ValueError, OSError, TypeError, AttributeError) as error:
        raise error if isinstance(error, ProfileError) else ProfileError(str(error)) from None


def _sample(mode: str) -> Image.Image | None:
    """Colours all over the space, as one row of pixels; ``None`` for spaces that are never sRGB."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode != "RGB":
        return None
    steps = np.linspace(0, 255, 13).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))


def in_srgb(image: Image.Image, profile: bytes | None, remarks: list[str]) -> Image.Image:
    """The image by its colour profile; the image itself where it has none that changes anything.

    Palettes are expanded first, transparency is put back; 16-bit samples keep their own rule.
    """
    if profile is None or image.mode in ("I", "F", "1") or image.mode.startswith("I;"):
        return image
    alpha = None
    layers = image
    if image.mode in ("RGBA", "LA", "PA", "P", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        layers, alpha = rgba.convert("RGB"), rgba.getchannel("A")
    grey = profile[16:20] == b"GRAY"
    try:
        found = to_srgb(layers.convert("L") if grey and layers.mode == "RGB" else layers, profile)
    except ProfileError as error:
        remarks.append(f"its colour profile is ignored, so colours are taken for sRGB: {error}")
        return image
    if found is None:
        return image
    if alpha is not None:
        found.putalpha(alpha)
    return found


def check_palette(image: Image.Image, name: str, remarks: list[str]) -> None:
    """See that a picture of numbered colours says which they are: Pillow paints black what it does not.

    Args:
        image: loaded, of any mode; ``name`` is what to call it.
        remarks: gets a sentence where a format that allows it leaves some of the numbers without a colour.

    Raises:
        FrameError: there is no colour at all, or a PNG's pixels have numbers past the last one.
    """
    if not image.mode.startswith("P"):
        return
    palette = image.palette
    colours = 0 if palette is None else len(palette.palette) // len(palette.mode)
    last = int(np.asarray(image.getchannel(0)).max(initial=0))
    if last < colours:
        return
    missing = f"pixels have colour {last} of a palette of {colours}"
    if not colours or image.format == "PNG":
        raise FrameError(f"{name}: damaged {image.format} image: {missing}")
    remarks.append(f"{missing}; they are taken for black")


def to_rgb(image: Image.Image, data: bytes, name: str, remarks: list[str]) -> Image.Image:
    """Any image as 8-bit RGB: transparency is laid on white, of 16-bit samples the highest bits are kept.

    Args:
        image: loaded; ``data`` is the file it came from, ``name`` what to call it.
        remarks: gets a sentence where the picture is likely not what was meant.

    Raises:
        FrameError: samples without a display range.
    """
    mode = image.mode
    clear = image.info.get("transparency")
    deep = png.sample_depth(data) == 16 if data.startswith(png.MAGIC) else mode.startswith("I")
    if mode in ("I", "F") or mode.startswith("I;"):
        return _from_deep(np.asarray(image), clear, data, mode, name, remarks)
    if mode == "RGB" and clear is None:
        if deep and np.asarray(image).max(initial=0) < DARK:
            remarks.append(_looks_dark(DARK * 256 - 1))
        return image
    if isinstance(clear, tuple) and deep:
        # Pillow keeps the high bytes of 16-bit samples, but the colour that is clear as it is stored.
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or clear is not None:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_deep(
    values: NDArray[Any], clear: object, data: bytes, mode: str, name: str, remarks: list[str]
) -> Image.Image:
    """Grey samples of more than 8 bits as RGB."""
    if mode == "F" or (values.size and not 0 <= values.min() <= values.max() <= 65535):
        raise FrameError(f"{name}: {mode} samples have no defined display range; convert it to 8 bits")
    is_png, highest = data.startswith(png.MAGIC), int(values.max(initial=0))
    bits = png.significant_bits(data) if is_png else None
    if bits is not None and 8 < bits < 16 and highest < 1 << bits:
        grey = (values >> (bits - 8)).astype(np.uint8)
    else:
        grey = (values >> 8).astype(np.uint8)
        if 255 < highest < DARK * 256:
            remarks.append(_looks_dark(highest))
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _looks_dark(highest: int) -> str:
    return f"none of its 16-bit samples is above {highest} of 65535, so it is nearly black"
