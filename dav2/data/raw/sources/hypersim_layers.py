"""Hypersim's normals and intrinsic layers, and the published filters of frames that have bad ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import FrameError, Layers
from dav2.data.raw.sources.layers import (
    LEAST_PSNR,
    Filter,
    Map,
    Mask,
    clean_light,
    clean_normals,
    clean_share,
    recomposition_psnr,
)

FILES = {
    "normals": "geometry_hdf5/frame.{}.normal_cam.hdf5",
    "albedo": "final_hdf5/frame.{}.diffuse_reflectance.hdf5",
    "shading": "final_hdf5/frame.{}.diffuse_illumination.hdf5",
    "residual": "final_hdf5/frame.{}.residual.hdf5",
    "image": "final_hdf5/frame.{}.color.hdf5",
}
LIGHTING = ("albedo", "shading", "residual")


def layer_files(root: str, frame: str, wanted: Sequence[str]) -> dict[str, str]:
    """Files of the layers of a frame; with the HDR image, where all of the lighting is wanted."""
    more = ["image"] if set(LIGHTING) <= set(wanted) else []
    return {layer: f"{root}_{FILES[layer].format(frame)}" for layer in (*wanted, *more)}


def read_layers(
    read: Mapping[str, Map], files: Mapping[str, str], rays: NDArray[np.float64], valid: Mask, bad: Filter, test: bool
) -> Layers:
    """Layers of a frame, by name.

    Args:
        read: what the files hold, (H, W, 3) each.
        files: their names, for messages.
        rays: unit rays (H, W, 3) through the pixels, in axes x right, y up, z to the viewer.
        valid: bool (H, W), pixels that belong to an entity.
        bad: what becomes of frames with bad pixels. Under ``published``, frames of lighting with a pixel that belongs
            to no entity are refused, and those whose albedo · shading + residual is less than 40 dB from the image.
        test: whether the frame is of the test split, whose published list leaves that last test out.

    Raises:
        FrameError: another size than the image's, or refused by a filter.
    """
    for layer, values in read.items():
        if values.shape != rays.shape:
            raise FrameError(f"{files[layer]}: must be {rays.shape} like its image, not {values.shape}")
    if bad == "published" and not valid.all() and set(read) & set(LIGHTING):
        raise FrameError(
            f"{1 - valid.mean():.2%} of the pixels belong to no entity, which the published filter of lighting does "
            "not allow; the option 'bad_layers: mask' keeps the rest"
        )
    found: Layers = {}
    if "normals" in read:
        found["normals"] = clean_normals(read["normals"], rays, bad, files["normals"])
    if "albedo" in read:
        found["albedo"] = clean_share(read["albedo"], valid, bad, files["albedo"], "albedo")
    if "shading" in read:
        found["shading"] = clean_light(read["shading"], valid, bad, files["shading"], "shading")
    if "residual" in read:
        found["residual"] = clean_light(read["residual"], valid, bad, files["residual"], "residual")
    if "image" in read and bad == "published" and not test:
        psnr = recomposition_psnr(read["image"], found["albedo"], found["shading"], found["residual"])
        if not psnr >= LEAST_PSNR:
            raise FrameError(f"albedo · shading + residual is the image to {psnr:.1f} dB only, not {LEAST_PSNR:g}")
    return found
