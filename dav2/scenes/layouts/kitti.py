"""KITTI, Eigen test split: raw folders with JPEG pictures (as monodepth2 prepares them) and annotated lidar depth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Camera, Capture
from dav2.scenes.layouts import files

LIDAR_RANGE = 80.0
LIDAR_ROWS_PER_BEAM = 4
SPLIT_LIST = "splits/eigen_benchmark/test_files.txt"


class Drive(NamedTuple):
    """``2011_09_26``, ``2011_09_26_drive_0002``."""

    date: str
    name: str


def write_frame(root: Path, drive: Drive, frame: int, capture: Capture, seed: int = 0) -> None:
    """Write the picture and its sparse depth: uint16, metres = value / 256, 0 where no lidar return."""
    stem = f"{frame:010d}"
    picture = root / drive.date / f"{drive.name}_sync" / "image_02" / "data" / f"{stem}.jpg"
    files.write_jpeg(picture, capture.rgb, quality=80)
    hit = lidar_pattern(capture.depth, seed) & np.isfinite(capture.depth) & (capture.depth < LIDAR_RANGE)
    coded = np.where(hit, np.rint(np.where(hit, capture.depth, 0) * 256), 0).astype(np.uint16)
    folder = root / "data_depth_annotated" / "val" / f"{drive.name}_sync" / "proj_depth" / "groundtruth"
    files.write_png(folder / "image_02" / f"{stem}.png", coded)


def write_lists(root: Path, frames: Iterable[tuple[Drive, int]], cameras: dict[str, Camera]) -> None:
    """Write the list of test frames (``folder index side``) and each date's ``calib_cam_to_cam.txt``."""
    for date, camera in cameras.items():
        # The set counts pixels from the centre of the first one.
        matrix = [camera.fx, 0, camera.cx - 0.5, 0, 0, camera.fy, camera.cy - 0.5, 0, 0, 0, 1, 0]
        files.write_lines(
            root / date / "calib_cam_to_cam.txt",
            [
                f"S_rect_02: {camera.width:.6e} {camera.height:.6e}",
                "P_rect_02: " + " ".join(f"{value:.6e}" for value in matrix),
            ],
        )
    files.write_lines(root / SPLIT_LIST, [f"{drive.date}/{drive.name}_sync {frame:010d} l" for drive, frame in frames])


def lidar_pattern(depth: NDArray[np.float32], seed: int) -> NDArray[np.bool_]:
    """bool (H, W): slightly slanted scan lines over the lower two thirds, a quarter of the returns lost at random."""
    height, width = depth.shape
    rows, columns = np.mgrid[:height, :width]
    beams = (rows + (columns - width / 2) ** 2 / width * 0.05).astype(int) % LIDAR_ROWS_PER_BEAM == 0
    kept = np.random.default_rng(seed).random(depth.shape) < 0.75
    return np.asarray(beams & (rows > height / 3) & kept)
