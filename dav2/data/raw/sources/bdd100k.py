"""BDD100K: driving videos of phones, every 10th frame; or the published key frames.

Layout: ``videos/train/<id>.mov`` and ``images/100k/train/<id>.jpg``, unpacked (videos also inside archives). Depth
Anything takes every 10th frame of the training videos. A frame is named by its number in the order of decoding, so
the same video always gives the same frames. The rotation that phones record is applied.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.images import MAX_PIXELS
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.tree import Tree
from dav2.data.videos import Damage, frames, open_video, picture
from dav2.extras import MissingExtraError, require

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_FRAMES = 10_000_000
"""More frames than this, days of video, are damage in a header."""

_VIDEO = re.compile(r"(?:.*/)?videos/train/(?:.*/)?(?P<id>[^/]+)\.(?:mov|mp4)")
_KEY_FRAME = re.compile(r"(?:.*/)?images/100k/train/(?:.*/)?(?P<id>[^/]+)\.jpg")


class BDD100KOptions(Options):
    """Videos or key frames, and how many of them."""

    frames: Literal["video", "keyframes"] = "video"
    every: int = Field(default=10, ge=1)
    """Of each video, frames 0, ``every``, 2 × ``every``, … are taken."""


class BDD100K(Reader[BDD100KOptions]):
    """Driving videos of phones, without depth."""

    group = "unlabelled"
    rules_name = "bdd100k"
    options_type = BDD100KOptions

    def __init__(self, path: str, name: str, options: dict[str, object]) -> None:
        super().__init__(path, name, options)
        self._video: Video | None = None
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_video": None}

    def items(self, names: list[str]) -> list[Item]:
        """Every so many frames of each training video, by the number of frames that its header gives; or the key
        frames.
        """
        if self.options.frames == "keyframes":
            found = [match for match in map(_KEY_FRAME.fullmatch, names) if match]
            return [Item(make_key(self.name, m["id"], "keyframe"), m["id"], "train", (m[0],)) for m in found]
        items = []
        for match in map(_VIDEO.fullmatch, names):
            if match:
                items += self._frames(match["id"], match[0])
        return items

    def load(self, item: Item) -> Frame:
        """Decodes forwards from the frame read last; going back opens the video again.

        Raises:
            FrameError: the video ends before the frame, or is damaged there.
        """
        if self.options.frames == "keyframes":
            image = self.image(item.paths[0])
            return Frame(item.key, image.rgb, jpeg=image.upright_jpeg)
        wanted = item.extra["frame"]
        video = self._video
        if video is None or self._pid != os.getpid() or video.name != item.paths[0] or video.position > wanted:
            if video is not None and self._pid == os.getpid():
                video.close()
            video, self._pid = Video(self.tree, item.paths[0], self.options.max_pixels), os.getpid()
            self._video = video
        return Frame(item.key, video.read(wanted))

    def _frames(self, video: str, name: str) -> list[Item]:
        """Items of one video, by the number of frames that its header gives."""
        try:
            count = frame_count(self.tree, name)
        except FrameError as error:
            return [self.refused(video, "video", name, str(error))]
        return [
            Item(make_key(self.name, video, f"{frame:06d}"), video, "train", (name,), {"frame": frame})
            for frame in range(0, count, self.options.every)
        ]


class Video:
    """A video that is decoded forwards, once."""

    def __init__(self, tree: Tree, name: str, max_pixels: int) -> None:
        self.name = name
        self.position = 0
        self._container = _open(tree, name, max_pixels)
        self._damage = Damage()
        self._decoded = frames(self._container, self._damage)

    def read(self, number: int) -> NDArray[np.uint8]:
        """Frame ``number`` ≥ ``position`` as uint8 (H, W, 3), upright.

        Raises:
            FrameError: the video ends before, or is damaged there.
        """
        frame = None
        while self.position <= number:
            frame = next(self._decoded, None)
            if frame is None:
                raise FrameError(f"{self.name}: ends after {self.position} frames, before frame {number}")
            self.position += 1
        # A frame that is lost would shift the numbers of all that follow.
        if self._damage.broken:
            raise FrameError(f"{self.name}: damaged before or at frame {number}")
        assert frame is not None, "a video is read forwards"
        return picture(frame, self.name)

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


def frame_count(tree: Tree, name: str) -> int:
    """Number of frames by the container's header.

    Raises:
        FrameError: not a video, or its header does not say, or says what no video has.
    """
    with _open(tree, name) as container:
        stream = container.streams.video[0]
        if stream.frames:
            count = int(stream.frames)
        elif stream.duration and stream.time_base and stream.average_rate:
            count = int(stream.duration * stream.time_base * stream.average_rate)
        else:
            raise FrameError(f"{name}: the header does not say how long the video is")
    if not 0 < count <= MAX_FRAMES:
        raise FrameError(f"{name}: {count} frames by its header")
    return count


def _open(tree: Tree, name: str, max_pixels: int = MAX_PIXELS) -> InputContainer:
    try:
        require("av")
    except MissingExtraError as error:
        raise SourceError(str(error)) from None
    return open_video(tree.open(name), name, max_pixels)
