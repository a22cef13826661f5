"""Videos frame by frame, in constant memory, with one slowly moving colour range for the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dav2.families.depth_anything.model import DepthAnything
from dav2.files import written_whole
from dav2.pictures import Palette, RunningRange, beside
from dav2.predict.inputs import Input
from dav2.predict.writers import Prediction, write

if TYPE_CHECKING:
    from dav2.predict.run import Options

PICTURES = {"color": "_color.mp4", "side-by-side": "_side.mp4"}
"""Kinds that become a video; the others become a folder with a file per frame."""


def predict_video(model: DepthAnything, source: Input, options: Options, palette: Palette) -> None:
    """Predict a video; frame rate and orientation are kept, sound is left out.

    Raises:
        ValueError: not a video, damaged, or a kind of output was asked for that a video has not.
        OSError: it cannot be read or the output not written.
    """
    import av

    if "ply" in options.kinds:
        raise ValueError(f"{source.path}: point clouds are made of images, not of videos")
    stem = options.out / source.name
    frame_kinds = [kind for kind in options.kinds if kind not in PICTURES]
    moving = RunningRange()
    try:
        with ExitStack() as stack:
            container = stack.enter_context(av.open(stack.enter_context(source.open())))
            if not container.streams.video:
                raise ValueError(f"{source.path}: holds no video stream")
            rate = container.streams.video[0].average_rate or Fraction(25)
            clips = {
                kind: stack.enter_context(Clip(stem.with_name(stem.name + suffix), rate))
                for kind, suffix in PICTURES.items()
                if kind in options.kinds
            }
            number = 0
            for images in _groups(_frames(container), options.batch):
                for rgb, depth in zip(images, model.infer_images(images, options.input_size), strict=True):
                    picture = palette(depth, *moving.update(depth))
                    for kind, clip in clips.items():
                        clip.add(picture if kind == "color" else beside(rgb, picture))
                    if frame_kinds:
                        prediction = Prediction(rgb, depth, model.config.metric)
                        write(prediction, frame_kinds, palette, stem / f"{number:06d}")
                    number += 1
            if number == 0:
                raise ValueError(f"{source.path}: holds no frames")
    except av.FFmpegError as error:
        raise ValueError(f"{source.path}: {error.strerror}") from error


class Clip:
    """An H.264 file that takes its name when it is whole. Odd sides lose one row or column, as the format wants."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path = path
        self.rate = rate
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> Clip:
        import av

        temporary = self._stack.enter_context(written_whole(self.path))
        self._container = self._stack.enter_context(av.open(str(temporary), "w", format="mp4"))
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._stream is not None:
            self._container.mux(self._stream.encode())
        self._stack.__exit__(*error)

    def add(self, rgb: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 (H, W, 3)."""
        import av

        height, width = (side // 2 * 2 for side in rgb.shape[:2])
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": "18"})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(frame))


def _frames(container: Any) -> Iterator[NDArray[np.uint8]]:
    """Upright frames, uint8 (H, W, 3)."""
    for frame in container.decode(video=0):
        yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def _groups(frames: Iterator[NDArray[np.uint8]], count: int) -> Iterator[list[NDArray[np.uint8]]]:
    group: list[NDArray[np.uint8]] = []
    for frame in frames:
        group.append(frame)
        if len(group) == count:
            yield group
            group = []
    if group:
        yield group
