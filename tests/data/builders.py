"""Small data sets in public layouts for the tests of storage, ingestion and loading."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.params import IngestParams, SourceParams


def photograph(seed: int, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """Smooth coloured blobs: compresses like a photograph, differs for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def write_photographs(folder: Path, count: int, *, first: int = 0) -> None:
    """``count`` photographs in two folders, JPEG and PNG in turn."""
    for number in range(first, first + count):
        place = folder / f"album{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        suffix = ".jpg" if number % 3 else ".png"
        cv2.imwrite(str(place / f"photo{number:03d}{suffix}"), photograph(number)[..., ::-1])


def write_vkitti2(folder: Path, scenes: int = 2, frames: int = 6) -> None:
    """Virtual KITTI 2: the top rows are sky, below depth from 3 m to 90 m in centimetres."""
    rng = np.random.default_rng(0)
    for scene in range(1, scenes + 1):
        camera = folder / f"Scene{scene:02d}" / "clone" / "frames"
        for kind in ("rgb", "depth"):
            (camera / kind / "Camera_0").mkdir(parents=True, exist_ok=True)
        for number in range(frames):
            image = photograph(scene * 1000 + number, 94, 310)
            cv2.imwrite(str(camera / f"rgb/Camera_0/rgb_{number:05d}.jpg"), image[..., ::-1])
            depth = cv2.resize(rng.integers(300, 9000, (6, 20)).astype(np.uint16), (310, 94))
            depth[:20] = 65535
            cv2.imwrite(str(camera / f"depth/Camera_0/depth_{number:05d}.png"), depth)


def photographs(path: Path | str) -> SourceParams:
    return SourceParams(reader="image_folder", path=str(path), group="unlabelled")


def vkitti2(path: Path | str, val_share: float = 0.0) -> SourceParams:
    return SourceParams(reader="vkitti2", path=str(path), group="synthetic", val_share=val_share)


def ingestion(shard_frames: int = 8, workers: int = 1) -> IngestParams:
    return IngestParams(shard_frames=shard_frames, workers=workers)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
