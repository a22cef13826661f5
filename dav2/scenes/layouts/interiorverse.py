"""InteriorVerse: everything EXR, one folder a scene, HDR pictures, millimetres, base colour with roughness and metal.

Format: the set's read-me (jingsenzhu/IndoorInverseRendering, ``interiorverse/``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Capture
from dav2.scenes.layouts import files

FOLDER = "dataset_85"
MILLIMETRES = 1000


def write_frame(root: Path, scene: str, frame: int, capture: Capture) -> None:
    """Write ``dataset_85/<scene>/NNN_{im,albedo,material,normal,depth,mask}.exr``.

    Pictures are scaled as their tone map scales them, so that clipping to [0, 1] and a gamma of 1/2.2 develop them.
    Depth is planar, ``inf`` where the mask is 0.

    Raises:
        ValueError: the capture has no layers.
    """
    if capture.layers is None or capture.radiance is None:
        raise ValueError(f"{scene}: InteriorVerse needs a capture with layers")
    folder, layers = root / FOLDER / scene, capture.layers
    luma = float(np.quantile(capture.radiance @ np.array([0.3, 0.59, 0.11]), 0.9))
    image = capture.radiance * (0.8**2.2 / max(luma, 1e-4))
    known = np.logical_and.reduce(np.isfinite(layers.normals), axis=-1)
    material = np.stack([layers.roughness, layers.metallicity, np.zeros_like(layers.roughness)], axis=-1)
    normals = np.where(known[..., None], capture.camera_normals(), 0)
    pictures = {"im": image, "albedo": layers.base, "material": material, "normal": normals}
    for name, picture in pictures.items():
        files.write_exr(folder / f"{frame:03d}_{name}.exr", _channels(picture.astype(np.float16)))
    depth = np.where(known, capture.depth * MILLIMETRES, np.inf).astype(np.float32)
    files.write_exr(folder / f"{frame:03d}_depth.exr", {"Y": depth})
    files.write_exr(folder / f"{frame:03d}_mask.exr", {"Y": np.asarray(known, np.float16)})


def write_lists(root: Path, splits: Mapping[str, Iterable[str]]) -> None:
    """Write ``dataset_85/{train,val,test}.txt``: scenes by split."""
    for split, scenes in splits.items():
        files.write_lines(root / FOLDER / f"{split}.txt", scenes)


def _channels(picture: NDArray[np.float16]) -> dict[str, NDArray[np.float16]]:
    return {name: picture[..., place] for place, name in enumerate("RGB")}
