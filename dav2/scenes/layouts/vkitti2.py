"""Virtual KITTI 2: JPEG pictures, planar depth in centimetres as 16-bit PNG (65535 = sky), text files of cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dav2.scenes.capture import Camera, Capture
from dav2.scenes.layouts import files

SKY = 65535


def write_frame(root: Path, scene: str, variation: str, frame: int, capture: Capture, camera: int = 0) -> None:
    """Write ``SceneSS/<variation>/frames/{rgb,depth}/Camera_C/…`` for one frame."""
    frames = root / scene / variation / "frames"
    files.write_jpeg(frames / "rgb" / f"Camera_{camera}" / f"rgb_{frame:05d}.jpg", capture.rgb)
    centimetres = np.where(np.isfinite(capture.depth), np.rint(capture.depth.astype(np.float64) * 100), SKY)
    coded = np.clip(centimetres, 1, SKY).astype(np.uint16)
    files.write_png(frames / "depth" / f"Camera_{camera}" / f"depth_{frame:05d}.png", coded)


def write_text(root: Path, scene: str, variation: str, cameras: list[Camera], camera: int = 0) -> None:
    """Write ``intrinsic.txt`` and ``extrinsic.txt`` (world to camera) of a variation, a line per frame."""
    intrinsic = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
    names = [f"r{i},{j}" if j < 4 else f"t{i}" for i in range(1, 4) for j in range(1, 5)]
    extrinsic = [" ".join(["frame", "cameraID", *names, "0", "0", "0", "1"])]
    for number, view in enumerate(cameras):
        # The set counts pixels from the centre of the first one.
        intrinsic.append(f"{number} {camera} {view.fx:.6f} {view.fy:.6f} {view.cx - 0.5:.6f} {view.cy - 0.5:.6f}")
        matrix = " ".join(f"{value:.9g}" for value in np.linalg.inv(view.to_world).ravel())
        extrinsic.append(f"{number} {camera} {matrix}")
    files.write_lines(root / scene / variation / "intrinsic.txt", intrinsic)
    files.write_lines(root / scene / variation / "extrinsic.txt", extrinsic)
