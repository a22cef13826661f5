"""Videos frame by frame, in constant memory, with one slowly moving colour range for the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dav2.data.videos import Damage, frames, open_video, picture
from dav2.families.family import Model
from dav2.files import written_whole
from dav2.maps import Maps
from dav2.pictures import Palette, RunningRange, beside
from dav2.predict.infer import infer
from dav2.predict.inputs import Input
from dav2.predict.layer_writers import layer_picture
from dav2.predict.marks import MARK
from dav2.predict.options import Options
from dav2.predict.writers import Prediction, write

PICTURES = {"color": "_color.mp4", "side-by-side": "_side.mp4"}
"""Kinds that become a video; the others become a folder with a file per frame."""


class Shown(NamedTuple):
    """A frame, uint8 (H, W, 3), when it is shown and for how long, in units of the stream's time base."""

    rgb: NDArray[np.uint8]
    time: int
    duration: int


def predict_video(model: Model, source: Input, options: Options, palette: Palette) -> str | None:
    """Predict a video; the time of each frame and its orientation are kept, sound is left out.

    Returns:
        what is wrong with the video, of which all that can be decoded is written, or ``None``.

    Raises:
        ValueError: not a video, without a whole frame, or a kind of output was asked for that a video has not.
        OSError: it cannot be read or the output not written.
    """
    if "ply" in options.kinds:
        raise ValueError("point clouds are made of images, not of videos")
    stem = options.out / source.name
    frame_kinds = [kind for kind in options.kinds if kind not in PICTURES]
    moving, damage, number = RunningRange(), Damage(), 0
    with ExitStack() as stack:
        file = cast(BinaryIO, stack.enter_context(source.open()))
        container = stack.enter_context(open_video(file, source.path))
        stream = container.streams.video[0]
        clips = {
            kind: stack.enter_context(Clip(stem.with_name(stem.name + suffix), kind, stream))
            for kind, suffix in PICTURES.items()
            if kind in options.kinds
        }
        for group in _groups(_shown(container, damage, source.path), options.batch):
            for shown, maps in zip(group, _maps(model, group, options.input_size), strict=True):
                coloured = _coloured(maps, palette, moving) if clips else None
                for kind, clip in clips.items():
                    assert coloured is not None
                    clip.add(shown._replace(rgb=coloured if kind == "color" else beside(shown.rgb, coloured)))
                if frame_kinds:
                    prediction = Prediction(shown.rgb, maps)
                    write(prediction, frame_kinds, palette, stem / f"{number:06d}")
                number += 1
        if number == 0:
            raise ValueError(f"holds no frames; {damage.told() or 'it is empty'}")
    return damage.told()


def _coloured(maps: Maps[NDArray[np.float32]], palette: Palette, moving: RunningRange) -> NDArray[np.uint8]:
    """Depth in the clip's slowly moving colours, or all layers from left to right."""
    if maps.quantity.is_depth:
        return palette(maps.values, *moving.update(maps.values))
    return np.concatenate([layer_picture(each) for each in maps.every], axis=1)


def _maps(model: Model, group: list[Shown], input_size: int | None) -> Iterator[Maps[NDArray[np.float32]]]:
    for found in infer(model, [shown.rgb for shown in group], input_size):
        if isinstance(found, Exception):
            raise found
        yield found


class Clip:
    """An H.264 file that takes its name when it is whole. Odd sides lose one row or column, as the format wants.

    Args:
        path: the file.
        kind: what it shows, noted in it.
        stream: the video it is made of, whose time base it takes.
    """

    def __init__(self, path: Path, kind: str, stream: Any) -> None:
        self.path, self.kind = path, kind
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.time_base = stream.time_base or 1 / self.rate
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> Clip:
        import av

        temporary = self._stack.enter_context(written_whole(self.path))
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format="mp4"))
        self._container.metadata["comment"] = f"{MARK} {self.kind}"
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._stack.__exit__(*error)

    def add(self, shown: Shown) -> None:
        """Append a frame.

        Raises:
            ValueError: it is of another size than the first, or too small for the format.
        """
        import av

        height, width = (side // 2 * 2 for side in shown.rgb.shape[:2])
        if self._stream is None:
            if not height or not width:
                raise ValueError(f"{shown.rgb.shape[1]} × {shown.rgb.shape[0]} pixels are too few for a video")
            self._stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": "18"})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            self._stream.codec_context.time_base = self.time_base
        if (self._stream.width, self._stream.height) != (width, height):
            raise ValueError(f"its frames change size to {width} × {height}; cut it there")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown.rgb[:height, :width]), format="rgb24")
        # The encoder wants times that rise; damaged files hold others.
        self._last = max(self._last + 1, shown.time)
        frame.pts, frame.time_base, frame.duration = self._last, self.time_base, shown.duration
        self._container.mux(self._stream.encode(frame))


def _shown(container: Any, damage: Damage, name: str) -> Iterator[Shown]:
    """Upright frames with their times, counted from the first one."""
    stream = container.streams.video[0]
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = round(1 / rate / stream.time_base) if stream.time_base else 1
    first: int | None = None
    following = 0
    for frame in frames(container, damage):
        time = following if frame.pts is None else int(frame.pts)
        first = time if first is None else first
        duration = int(frame.duration or step)
        following = time + duration
        yield Shown(picture(frame, name), time - first, duration)


def _groups(shown: Iterator[Shown], count: int) -> Iterator[list[Shown]]:
    group: list[Shown] = []
    for one in shown:
        group.append(one)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group
