"""TartanAir V1: PNG pictures, float32 planar depth in metres as ``.npy`` with a huge value for sky, NED poses.

The set has no camera file: its field of view is 90°, so f = width / 2 and the principal point is the image centre.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from dav2.scenes.capture import Camera, Capture
from dav2.scenes.layouts import files

SKY_METRES = 10_000.0


def write_frame(root: Path, environment: str, difficulty: str, path: str, frame: int, capture: Capture) -> None:
    """Write ``ENV/{Easy,Hard}/PNNN/{image_left,depth_left}/FFFFFF_left…`` for one frame.

    Raises:
        ValueError: the camera is not the 90° camera that every reader of the set assumes.
    """
    camera = capture.camera
    if not np.allclose([camera.fx, camera.fy], camera.width / 2):
        raise ValueError(f"TartanAir has a field of view of 90°: f must be {camera.width / 2}, not {camera.fx}")
    folder = root / environment / difficulty / path
    files.write_png(folder / "image_left" / f"{frame:06d}_left.png", capture.rgb)
    depth = np.where(np.isfinite(capture.depth), capture.depth, SKY_METRES).astype(np.float32)
    buffer = io.BytesIO()
    np.save(buffer, depth)
    files.write(folder / "depth_left" / f"{frame:06d}_left_depth.npy", buffer.getvalue())


def write_poses(root: Path, environment: str, difficulty: str, path: str, cameras: list[Camera]) -> None:
    """Write ``pose_left.txt``: tx ty tz qx qy qz qw per frame, in the NED frame (x forward, y right, z down)."""
    from scipy.spatial.transform import Rotation

    ned_from_camera = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    world_to_ned = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    lines = []
    for camera in cameras:
        orientation = world_to_ned @ camera.to_world[:3, :3] @ ned_from_camera.T
        quaternion = Rotation.from_matrix(orientation).as_quat()
        numbers = [*(world_to_ned @ camera.to_world[:3, 3]), *quaternion]
        lines.append(" ".join(f"{value:.9g}" for value in numbers))
    files.write_lines(root / environment / difficulty / path / "pose_left.txt", lines)
