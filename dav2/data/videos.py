"""Frames of a video as they are to be seen: upright, not mirrored, of ordinary range, and none missing unnoticed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import FrameError
from dav2.data.images import MAX_PIXELS

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.sidedata.sidedata import SideData

_HDR = {16: "PQ", 18: "HLG"}
"""Transfer curves of high dynamic range, by their numbers in ITU-T H.273."""
_MISSING = 0.02
"""Share of its promised length that a video may lack: containers round, and sound may go on for a moment."""


@dataclass
class Damage:
    """What was wrong with a video while it was decoded.

    Attributes:
        packets: pieces of the file that belong to the picture, ``promised`` by its index if that is known.
        broken: packets that could not be decoded, and frames in which the decoder filled something in.
        stopped: why reading ended before the end of the file.
    """

    packets: int = 0
    promised: int = 0
    broken: int = 0
    stopped: str = ""
    seconds: float = 0.0
    promised_seconds: float = 0.0

    def told(self) -> str | None:
        """What is wrong, or ``None``."""
        found = []
        lacking = self.promised_seconds - self.seconds
        if self.stopped or 0 < self.packets < self.promised:
            of = f" of {self.promised}" if self.promised else ""
            found.append(
                f"cut short: {self.packets}{of} frames are there" + (f" ({self.stopped})" * bool(self.stopped))
            )
        elif not self.promised and lacking > max(0.5, _MISSING * self.promised_seconds):
            found.append(f"cut short: {self.seconds:.1f} of {self.promised_seconds:.1f} seconds are there")
        if self.broken:
            found.append(f"damaged: {self.broken} frames cannot be decoded, or not wholly")
        return "; ".join(found) or None


def open_video(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> InputContainer:
    """A PyAV container that holds a video stream.

    Raises:
        FrameError: not a video, too large, or of high dynamic range.
    """
    import av

    try:
        container = av.open(file, "r")
    except (av.FFmpegError, ValueError) as error:
        raise FrameError(f"{name}: not a readable video: {_text(error)}") from error
    if not container.streams.video:
        container.close()
        raise FrameError(f"{name}: holds no video")
    context = container.streams.video[0].codec_context
    if context.width * context.height > max_pixels:
        container.close()
        raise FrameError(f"{name}: {context.width} × {context.height} pixels, more than max_pixels = {max_pixels}")
    return container


def frames(container: InputContainer, damage: Damage) -> Iterator[VideoFrame]:
    """Decoded frames; what cannot be decoded is counted in ``damage`` and passed over."""
    import av

    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    damage.promised = int(stream.frames or 0)
    damage.promised_seconds = float(container.duration or 0) / av.time_base
    start = float(container.start_time or 0) / av.time_base
    packets = container.demux()
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError as error:
            damage.stopped = _text(error)
            return
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - start
            damage.seconds = max(damage.seconds, end)
        if packet.stream is not stream:
            continue
        damage.packets += packet.size > 0
        damage.broken += packet.is_corrupt
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            damage.broken += 1
            continue
        for frame in decoded:
            assert isinstance(frame, av.VideoFrame), "of the stream of pictures"
            damage.broken += frame.is_corrupt
            yield frame


def picture(frame: VideoFrame, name: str) -> NDArray[np.uint8]:
    """A frame as it is to be seen, uint8 (H, W, 3).

    Raises:
        FrameError: it is of high dynamic range, whose codes shown as they are would be another picture.
    """
    curve = _HDR.get(int(frame.color_trc or 0))
    if curve:
        raise FrameError(f"{name}: high dynamic range ({curve}); convert it to SDR (BT.709) first")
    rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    # Their stub calls it a dictionary; what it iterates over are the pieces.
    pieces: Iterable[SideData] = frame.side_data  # type: ignore[assignment]
    for data in pieces:
        if data.type.name == "DISPLAYMATRIX":
            rgb = placed(rgb, struct.unpack("=9i", bytes(data)[:36]))
    return np.ascontiguousarray(rgb)


def placed(rgb: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Turn and mirror by a display matrix (ISO/IEC 14496-12, 6.2.2): of the eight ways the one nearest to it.

    ``x' = a x + c y``, ``y' = b x + d y`` for the matrix a b u, c d v, x y w; one that maps all to a line is no matrix.
    """
    a, b, c, d = (matrix[at] / 65536 for at in (0, 1, 3, 4))
    if abs(a * d - b * c) < 1e-6:
        return rgb
    if abs(a * d) >= abs(b * c):
        across, down = a, d
    else:
        rgb, across, down = rgb.swapaxes(0, 1), c, b
    return rgb[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
