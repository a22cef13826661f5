"""BlendedMVS / BlendedMVG: JPEG pictures with masked twins, PFM depth of arbitrary scale (0 = unknown), ``cams``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Capture
from dav2.scenes.layouts import files


def write_frame(root: Path, scene: str, frame: int, capture: Capture, metres_per_unit: float = 1.0) -> None:
    """Write the picture, its masked twin, the depth and the camera of one frame of scene ``<24 hex digits>``."""
    folder = root / scene
    known = np.isfinite(capture.depth)
    depth = np.where(known, capture.depth / metres_per_unit, 0.0).astype(np.float32)
    images = folder / "blended_images"
    files.write_jpeg(images / f"{frame:08d}.jpg", capture.rgb)
    files.write_jpeg(images / f"{frame:08d}_masked.jpg", (capture.rgb * known[..., None]).astype(np.uint8))
    files.write(folder / "rendered_depth_maps" / f"{frame:08d}.pfm", encode_pfm(depth))
    write_camera(folder / "cams" / f"{frame:08d}_cam.txt", capture, depth, metres_per_unit)


def write_pairs(root: Path, scene: str, frames: int) -> None:
    """Write ``cams/pair.txt``: per frame its neighbours with scores (here: the nearest in order of capture)."""
    lines = [str(frames)]
    for frame in range(frames):
        others = sorted((other for other in range(frames) if other != frame), key=lambda n: abs(n - frame))[:10]
        scored = " ".join(f"{other} {1000.0 / abs(other - frame):.3f}" for other in others)
        lines += [str(frame), f"{len(others)} {scored}".strip()]
    files.write_lines(root / scene / "cams" / "pair.txt", lines)


def write_camera(path: Path, capture: Capture, depth: NDArray[np.float32], metres_per_unit: float) -> None:
    """World-to-camera matrix, intrinsics, then DEPTH_MIN INTERVAL COUNT DEPTH_MAX in the scene's own unit."""
    camera = capture.camera
    extrinsic = np.linalg.inv(camera.to_world)
    extrinsic[:3, 3] /= metres_per_unit
    intrinsic = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    known = depth[depth > 0]
    near, far = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    lines = ["extrinsic", *(" ".join(f"{v:.9g}" for v in row) for row in extrinsic), ""]
    lines += ["intrinsic", *(" ".join(f"{v:.9g}" for v in row) for row in intrinsic), ""]
    lines += [f"{near * 0.99:.6g} {(far - near) / 127:.6g} 128 {far * 1.01:.6g}"]
    files.write_lines(path, lines)


def encode_pfm(values: NDArray[np.float32]) -> bytes:
    """Portable float map of float32 (H, W): text header, scale -1 (little-endian), rows from the bottom up."""
    height, width = values.shape
    return f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].astype("<f4").tobytes()
