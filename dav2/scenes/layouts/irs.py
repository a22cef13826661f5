"""IRS: PNG pictures and disparity as EXR with one float channel named ``G``; depth = 48 / disparity, in metres.

48 = 480 px focal length × 0.1 m baseline at the width of 960 px. Smaller pictures keep that constant, so the disparity
is in pixels of the original width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dav2.scenes.capture import Capture
from dav2.scenes.layouts import files

FOCAL_TIMES_BASELINE = 48.0


def write_frame(root: Path, category: str, scene: str, frame: int, capture: Capture) -> None:
    """Write ``IRSDataset/<category>/<scene>/{l_NNNNN.png,d_NNNNN.exr}``; disparity 0 where there is no surface."""
    folder = root / "IRSDataset" / category / scene
    files.write_png(folder / f"l_{frame:05d}.png", capture.rgb)
    disparity = (FOCAL_TIMES_BASELINE / capture.depth.astype(np.float64)).astype(np.float32)
    files.write_exr(folder / f"d_{frame:05d}.exr", {"G": disparity})


def write_lists(root: Path, frames: Iterable[tuple[str, str, int]]) -> None:
    """Write ``lists/irs_{train,test}.list``: left, right, disparity, normal; every 7th frame of a scene is test."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for category, scene, frame in frames:
        stem = f"{category}/{scene}/"
        names = (
            f"{stem}{letter}_{frame:05d}.{ext}"
            for letter, ext in (("l", "png"), ("r", "png"), ("d", "exr"), ("n", "exr"))
        )
        lines["test" if frame % 7 == 1 else "train"].append(" ".join(names))
    for split, content in lines.items():
        files.write_lines(root / "lists" / f"irs_{split}.list", content)
