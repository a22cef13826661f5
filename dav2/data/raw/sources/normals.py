"""Benchmarks of surface normals as they are passed around: ScanNet, NYUv2, iBims-1, Sintel, OASIS, DIODE.

Two forms, told apart by the suffix of the normals: DSINE's (``<scene>/<name>_img.png`` beside ``<name>_normal.png`` or
``.exr`` and ``<name>_intrins.npy``), whose x axis points left, and Marigold's (``_normal.npy``, float (H, W, 3)), whose
axes are ours. In a PNG, bytes 0 … 255 stand for −1 … 1 and a black pixel for none. Vectors shorter than 0.5 mark pixels
without a normal. OASIS' ``_normal.pkl`` is a pickle and is never read; its maps come as ``.npy``.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import positive, read_exr_colours, read_npy, read_png
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.layers import clean_normals

_NORMALS = re.compile(r"(?P<root>(?P<scene>(?:.*/)?)(?P<frame>[^/]+))_normal\.(?P<kind>npy|png|exr)")
_IMAGES = ("{}_img.png", "{}_img.jpg", "{}_rgb.png", "{}_rgb.jpg", "{}.png", "{}.jpg")
_IMAGE = re.compile(r"(?P<root>.+?)_(?:img|rgb)\.(?:png|jpg)")


class NormalsOptions(Options):
    """Axes."""

    x_axis: Literal["auto", "left", "right"] = "auto"
    """Where the stored x axis points: ``auto`` is left for PNG and EXR (DSINE), right for NPY (Marigold)."""


class Normals(Reader[NormalsOptions]):
    """Images with surface normals and no depth."""

    group = "benchmark"
    rules_name = "normals"
    options_type = NormalsOptions

    def items(self, names: list[str]) -> list[Item]:
        """Maps of normals that have an image, with the camera where it is there."""
        there, items = set(names), []
        for match in filter(None, map(_NORMALS.fullmatch, names)):
            root, scene = match["root"], match["scene"].strip("/") or "all"
            image = next((name for each in _IMAGES if (name := each.format(root)) in there), None)
            if image is None:
                continue
            camera = f"{root}_intrins.npy"
            paths = (image, match[0], *([camera] if camera in there else []))
            items.append(Item(make_key(self.name, scene, match["frame"]), scene, "test", paths))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share the path before ``_img`` and ``_normal``."""
        if match := _NORMALS.fullmatch(name):
            return match["root"], "depth"
        match = _IMAGE.fullmatch(name)
        return (match["root"], "image") if match else None

    def load(self, item: Item) -> Frame:
        """Unit normals in our axes (x right, y up, z to the viewer), ``nan`` where there is none; no depth.

        Raises:
            FrameError: image and map differ in size, or the map is no map of normals.
        """
        image, name = self.image(item.paths[0]), item.paths[1]
        raw = self._raw(name)
        if raw.shape != image.rgb.shape:
            raise FrameError(f"{name}: normals must be {image.rgb.shape} like their image, not {raw.shape}")
        left = self.options.x_axis == "left" or (self.options.x_axis == "auto" and not name.endswith(".npy"))
        # As published: the truth of a benchmark is not turned over.
        normals = clean_normals(raw * np.array([-1 if left else 1, 1, 1], np.float32), None, "mask", name)
        camera = self._camera(item.paths[2]) if len(item.paths) > 2 else None
        return Frame(item.key, image.rgb, None, intrinsics=camera, jpeg=image.upright_jpeg, normals=normals)

    def _raw(self, name: str) -> NDArray[np.float32]:
        data, most = self.tree.read(name), self.options.max_pixels
        if name.endswith(".npy"):
            return read_npy(data, name).astype(np.float32)
        if name.endswith(".exr"):
            return read_exr_colours(data, name, max_pixels=most)
        stored = read_png(data, name, max_pixels=most)
        if stored.dtype != np.uint8 or stored.ndim != 3:
            raise FrameError(f"{name}: normals must be an 8-bit RGB PNG, not {stored.dtype} {stored.shape}")
        values = stored[..., :3].astype(np.float32) / 255 * 2 - 1
        return np.where(stored[..., :3].any(axis=-1, keepdims=True), values, 0)

    def _camera(self, name: str) -> Intrinsics:
        matrix = read_npy(self.tree.read(name), name)
        if matrix.shape != (3, 3):
            raise FrameError(f"{name}: must be a 3 × 3 matrix, not {matrix.shape}")
        try:
            return Intrinsics(*positive([float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2))]))
        except ValueError as error:
            raise FrameError(f"{name}: {error}") from None
