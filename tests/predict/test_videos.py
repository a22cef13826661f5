"""Videos keep the time and the place of their frames; what is missing, damaged or of another range is said."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dav2.data.frame import FrameError
from dav2.data.videos import Damage, frames, open_video, picture, placed
from dav2.families.depth_anything.model import build
from dav2.predict.inputs import Input
from dav2.predict.options import Options
from dav2.predict.run import predict

TICK = Fraction(1, 1000)


def write(path: Path, count: int, times: Callable[[int], int] | None = None, curve: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if times:
            stream.codec_context.time_base = TICK
        if curve:
            stream.codec_context.color_trc = curve
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            if times:
                frame.pts, frame.time_base = times(number), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remuxed(source: Path, target: Path, **options: str) -> Path:
    with av.open(str(target), "w", options=options) as out, av.open(str(source)) as container:
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return target


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(frame.time), 3) for frame in container.decode(video=0)]


def predicted(path: Path, out: Path, kind: str) -> list[str]:
    torch.manual_seed(0)
    outcome = predict(build("vitn").eval(), [Input(str(path), "v")], Options(out, [kind], 28), lambda _: None)
    return [failure.reason for failure in outcome.failures]


def test_a_variable_frame_rate_keeps_its_time(tmp_path: Path) -> None:
    moments = [0, 40, 80, 900, 940, 2000, 2120]
    video = write(tmp_path / "v.mp4", len(moments), moments.__getitem__)
    assert predicted(video, tmp_path / "out", "color") == []
    assert times_of(tmp_path / "out/v_color.mp4") == times_of(video) == [moment / 1000 for moment in moments]


def test_a_video_cut_short_is_said_and_what_is_there_is_written(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", 60)
    first = remuxed(whole, tmp_path / "first.mp4", movflags="faststart")
    other = remuxed(whole, tmp_path / "first.mkv")
    for path, words in ((first, "of 60 frames are there"), (other, "seconds are there")):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        (reason,) = predicted(path, tmp_path / path.suffix[1:], "npy")
        assert "cut short" in reason and words in reason
        assert 10 < len(list((tmp_path / path.suffix[1:] / "v").iterdir())) < 40


def test_damage_in_the_middle_is_said(tmp_path: Path) -> None:
    path = remuxed(write(tmp_path / "whole.mp4", 60), tmp_path / "v.mp4", movflags="faststart")
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 3000):
        data[at] = (data[at] * 7 + 13) & 255
    path.write_bytes(data)
    (reason,) = predicted(path, tmp_path / "out", "npy")
    assert "damaged" in reason and "what is sound is written" in reason


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_refused(tmp_path: Path, curve: int, name: str) -> None:
    (reason,) = predicted(write(tmp_path / "v.mp4", 3, curve=curve), tmp_path / "out", "npy")
    assert f"high dynamic range ({name})" in reason and not list((tmp_path / "out").rglob("*.npy"))


def test_a_sound_video_has_no_damage(tmp_path: Path) -> None:
    damage = Damage()
    with write(tmp_path / "v.mp4", 12).open("rb") as file, open_video(file, "v") as container:
        shown = [picture(frame, "v") for frame in frames(container, damage)]
    assert len(shown) == damage.packets == 12 and damage.told() is None


ONE = 65536
PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((ONE, 0, 0, ONE), PICTURE),
        ((0, 0, 0, 0), PICTURE),
        ((-ONE, 0, 0, ONE), PICTURE[:, ::-1]),
        ((ONE, 0, 0, -ONE), PICTURE[::-1]),
        ((-ONE, 0, 0, -ONE), np.rot90(PICTURE, 2)),
        ((0, ONE, -ONE, 0), np.rot90(PICTURE, -1)),
        ((0, -ONE, ONE, 0), np.rot90(PICTURE, 1)),
        ((0, ONE, ONE, 0), PICTURE.swapaxes(0, 1)),
    ],
)
def test_a_display_matrix_turns_and_mirrors(matrix: tuple[int, ...], expected: np.ndarray) -> None:
    a, b, c, d = matrix
    np.testing.assert_array_equal(placed(PICTURE, (a, b, 0, c, d, 0, 0, 0, 1 << 30)), expected)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_turned_video_stands_as_players_show_it(tmp_path: Path, turn: int) -> None:
    path = write(tmp_path / "whole.mp4", 2)
    with av.open(str(tmp_path / "v.mp4"), "w") as out, av.open(str(path)) as container:
        stream = out.add_stream_from_template(container.streams.video[0])
        stream.set_display_rotation(turn)
        for packet in container.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    with (tmp_path / "v.mp4").open("rb") as file, open_video(file, "v") as container:
        frame = next(frames(container, Damage()))
        expected = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        np.testing.assert_array_equal(picture(frame, "v"), expected)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    with (tmp_path / "v.mp4").open("rb") as file, pytest.raises(FrameError, match=r"v\.mp4: not a readable video"):
        open_video(file, "v.mp4")
