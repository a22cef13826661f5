"""ScanNet (Dai et al., CVPR 2017): hand-held scans of rooms with a structured-light sensor.

Two forms are read: the recordings (``<scene>.sens``, version 4) and their export (``<scene>/color/N.jpg`` beside
``<scene>/depth/N.png``, millimetres). Colour is larger than depth and is reduced to its size, as benchmarks do.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.images import Decoded, decode
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import bounded, read_png16
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.tree import MAX_BYTES

MILLIMETRES = np.float32(0.001)
_SENS = re.compile(r"(?:.*/)?(?P<scene>scene\d{4}_\d\d)\.sens")
_COLOUR = re.compile(r"(?P<root>(?:.*/)?(?P<scene>scene\d{4}_\d\d))/color/(?P<frame>\d+)\.(?:jpg|png)")
_DEPTH = re.compile(r"(?P<root>(?:.*/)?scene\d{4}_\d\d)/depth/(?P<frame>\d+)\.png")
_FRAME_HEADER = struct.Struct("<16f4Q")
_JPEG, _ZLIB = 2, 1


class ScanNetOptions(Options):
    """Which frames of a recording are taken."""

    every: int = Field(default=1, ge=1)
    """Of each recording, frames 0, ``every``, 2 × ``every``, … are taken."""


class SensHeader(NamedTuple):
    """What stands before the frames of a ``.sens`` file."""

    camera: Intrinsics
    width: int
    height: int
    depth_shift: float
    frames: int
    end: int


class ScanNet(Reader[ScanNetOptions]):
    """Rooms with planar depth of a structured-light sensor, in metres."""

    group = "benchmark"
    rules_name = "scannet"
    options_type = ScanNetOptions

    def items(self, names: list[str]) -> list[Item]:
        """Every so many frames of recordings and of exported pictures."""
        items = []
        for name in names:
            if match := _SENS.fullmatch(name):
                items += self._recorded(match["scene"], name)
            elif (match := _COLOUR.fullmatch(name)) and int(match["frame"]) % self.options.every == 0:
                depth = f"{match['root']}/depth/{match['frame']}.png"
                key = make_key(self.name, match["scene"], f"{int(match['frame']):06d}")
                items.append(Item(key, match["scene"], "test", (name, depth)))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one exported frame share scene and number; a recording holds both."""
        for pattern, kind in ((_COLOUR, "image"), (_DEPTH, "depth")):
            if (match := pattern.fullmatch(name)) and int(match["frame"]) % self.options.every == 0:
                return (match["root"], match["frame"]), kind
        return None

    def load(self, item: Item) -> Frame:
        """Depth from millimetres to metres, colour reduced to its size."""
        if "colour" in item.extra:
            return self._load_recorded(item)
        image = self.image(item.paths[0])
        raw = read_png16(self.tree.read(item.paths[1]), item.paths[1], max_pixels=self.options.max_pixels)
        return self.labelled(item, _reduced(image, raw.shape), raw * MILLIMETRES)

    def _recorded(self, scene: str, name: str) -> list[Item]:
        """Items of one recording; every frame says how long it is, so only the headers are read."""
        items: list[Item] = []
        try:
            with self.tree.open(name) as file:
                header = read_sens_header(file, name)
                at = header.end
                for frame in range(header.frames):
                    file.seek(at)
                    fields = file.read(_FRAME_HEADER.size)
                    if len(fields) < _FRAME_HEADER.size:
                        raise FrameError(f"{name}: ends at frame {frame} of {header.frames}")
                    *_, colour, depth = _FRAME_HEADER.unpack(fields)
                    at += _FRAME_HEADER.size
                    if frame % self.options.every == 0:
                        extra = {"colour": [at, colour], "depth": [at + colour, depth]}
                        items.append(Item(make_key(self.name, scene, f"{frame:06d}"), scene, "test", (name,), extra))
                    at += colour + depth
        except FrameError as error:
            items.append(self.refused(scene, "end", name, str(error)))
        except struct.error as error:
            items.append(self.refused(scene, "end", name, f"not a .sens recording: {error}"))
        return items

    def _load_recorded(self, item: Item) -> Frame:
        name = item.paths[0]
        with self.tree.open(name) as file:
            header = read_sens_header(file, name)
            parts = {}
            for kind in ("colour", "depth"):
                offset, size = item.extra[kind]
                if not 0 <= size <= MAX_BYTES or not 0 <= offset < 2**62:
                    raise FrameError(f"{name}: {kind} of {item.key} is said to have {size} bytes")
                file.seek(offset)
                parts[kind] = file.read(size)
        image = decode(parts["colour"], f"{name}: {item.key}", max_pixels=self.options.max_pixels)
        bounded(header.width * header.height, self.options.max_pixels, name)
        needed = 2 * header.width * header.height
        try:
            raw = zlib.decompressobj().decompress(parts["depth"], needed + 1)
        except zlib.error as error:
            raise FrameError(f"{name}: depth of {item.key} is damaged: {error}") from error
        if len(raw) != needed:
            raise FrameError(f"{name}: depth of {item.key} has {len(raw)} of {needed} bytes")
        depth = np.frombuffer(raw, "<u2").reshape(header.height, header.width) / np.float32(header.depth_shift)
        return self.labelled(item, _reduced(image, depth.shape), depth, header.camera)


def read_sens_header(file: BinaryIO, name: str) -> SensHeader:
    """Header of a ``.sens`` file of version 4, little endian.

    Raises:
        FrameError: another version, or compressed otherwise than with JPEG and zlib.
        struct.error: the file ends within the header.
    """

    def take(form: str) -> tuple[float, ...]:
        return struct.unpack(form, file.read(struct.calcsize(form)))

    (version,) = take("<I")
    if version != 4:
        raise FrameError(f"{name}: .sens version {version}, only 4 is known")
    (length,) = take("<Q")
    file.seek(int(length), 1)
    _, _, depth_camera, _ = (take("<16f") for _ in range(4))
    colour_code, depth_code = take("<2i")
    if (colour_code, depth_code) != (_JPEG, _ZLIB):
        raise FrameError(f"{name}: compression {colour_code}, {depth_code}; only JPEG (2) and zlib (1) are known")
    _, _, width, height = take("<4I")
    (shift,) = take("<f")
    (frames,) = take("<Q")
    if not 0 < shift < float("inf"):
        raise FrameError(f"{name}: a depth unit of 1 / {shift} metres")
    camera = Intrinsics(depth_camera[0], depth_camera[5], depth_camera[2], depth_camera[6])
    return SensHeader(camera, int(width), int(height), shift, int(frames), file.tell())


def _reduced(image: Decoded, shape: tuple[int, ...]) -> Decoded:
    """The image at the size of the depth map, each pixel being the mean of those it covers."""
    if image.rgb.shape[:2] == shape:
        return image
    small: NDArray[np.uint8] = np.asarray(
        cv2.resize(image.rgb, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8
    )
    return Decoded(small, None)
