"""InteriorVerse (Zhu et al., SIGGRAPH Asia 2022): rendered rooms with base colour, roughness, metallicity, normals.

Layout: ``dataset_{85,120}/<scene>/NNN_{im,albedo,material,normal,depth,mask}.exr`` with ``train.txt``, ``val.txt`` and
``test.txt`` that list scenes. Pictures are HDR and become sRGB as the authors say: clipped to [0, 1], gamma 1/2.2.
Material is R roughness, G metallicity, linear. Depth is in millimetres; we take it as planar, which the authors do not
say. Normals are in OpenGL's axes, which are ours. A pixel counts where every channel of the mask is above 0.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame, FrameError, Intrinsics, Layers, make_key
from dav2.data.images import Decoded
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_exr, read_exr_channels, read_exr_colours
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.layers import Filter, Mask, clean_normals, clean_share, pinhole_rays
from dav2.data.raw.sources.lists import read_lines

GAMMA = 2.2
MILLIMETRES = np.float32(0.001)
_FILE = re.compile(
    r"(?P<root>(?:.*/)?dataset_(?P<fov>85|120)/(?P<scene>[^/]+)/(?P<frame>\d+))_"
    r"(?P<kind>im|albedo|material|normal|depth|mask)\.exr"
)
_LIST = re.compile(r"(?:.*/)?dataset_(?P<fov>85|120)/(?P<split>train|val|test)\.txt")
_FILES = {"normals": "normal", "albedo": "albedo", "roughness": "material", "metallicity": "material"}


class InteriorVerseOptions(Options):
    """Layers and what to do with bad ones."""

    layers: tuple[Literal["normals", "albedo", "roughness", "metallicity"], ...] = (
        "normals", "albedo", "roughness", "metallicity",
    )  # fmt: skip
    bad_layers: Filter = "mask"
    """``mask`` marks pixels outside of the mask or the range unknown; ``published`` refuses a frame with bad pixels
    inside of its mask."""


class InteriorVerse(Reader[InteriorVerseOptions]):
    """Rendered rooms with depth in metres, normals and materials."""

    rules_name = "interiorverse"
    options_type = InteriorVerseOptions

    def items(self, names: list[str]) -> list[Item]:
        """Pictures with depth; a scene has the split of the published lists."""
        there, splits = set(names), self._splits(names)
        kinds = ["depth", "mask", *dict.fromkeys(_FILES[layer] for layer in self.options.layers)]
        items = []
        for match in filter(None, map(_FILE.fullmatch, names)):
            root, scene = match["root"], match["scene"]
            if match["kind"] != "im" or f"{root}_depth.exr" not in there:
                continue
            paths = (match[0], *(f"{root}_{kind}.exr" for kind in kinds))
            key = make_key(self.name, f"fov{match['fov']}", scene, match["frame"])
            # The same places are seen at both angles, so a scene's name alone says what must not be torn apart.
            split = splits.get((match["fov"], scene), "")
            items.append(Item(key, scene, split, paths, {"fov": float(match["fov"])}))
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share scene and number."""
        match = _FILE.fullmatch(name)
        kind = {"im": "image", "depth": "depth"}.get(match["kind"]) if match else None
        return (match["root"], kind) if match and kind else None

    def _splits(self, names: list[str]) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}
        for match in filter(None, map(_LIST.fullmatch, names)):
            # A small copy may have no scene of a split.
            lines = read_lines(self.tree, match[0], names) if self.text(match[0]).strip() else []
            found |= {(match["fov"], fields[0].strip("/")): match["split"] for fields in lines}
        return found

    def load(self, item: Item) -> Frame:
        """The picture as 8-bit sRGB, depth from millimetres to metres where the mask holds, and the layers asked for.

        Raises:
            FrameError: files differ in size, or a layer is bad where the option refuses such frames.
        """
        files = {path.rpartition("_")[2].removesuffix(".exr"): path for path in item.paths}
        linear = np.nan_to_num(self._colours(files["im"]), posinf=1)
        image = Decoded(np.rint(255 * linear.clip(0, 1) ** (1 / GAMMA)).astype(np.uint8), None)
        height, width = image.rgb.shape[:2]
        mask = self._mask(files["mask"])
        depth = read_exr(self.tree.read(files["depth"]), files["depth"], "Y", max_pixels=self.options.max_pixels)
        if {mask.shape, depth.shape} != {(height, width)}:
            raise FrameError(f"{files['depth']}: depth {depth.shape}, mask {mask.shape}, image {(height, width)}")
        focal = width / 2 / math.tan(math.radians(item.extra["fov"]) / 2)
        camera = Intrinsics(focal, focal, width / 2, height / 2)
        frame = self.labelled(item, image, np.where(mask, depth * MILLIMETRES, np.nan), camera)
        return replace(frame, **self._layers(files, mask, camera))

    def _layers(self, files: dict[str, str], mask: Mask, camera: Intrinsics) -> Layers:
        wanted, bad = self.options.layers, self.options.bad_layers
        read = {kind: self._colours(files[kind]) for kind in {_FILES[layer] for layer in wanted}}
        for kind, values in read.items():
            if values.shape[:2] != mask.shape:
                raise FrameError(f"{files[kind]}: is {values.shape[:2]}, its image {mask.shape}")
        found: Layers = {}
        if "normals" in wanted:
            raw = np.where(mask[..., None], read["normal"], np.nan)
            found["normals"] = clean_normals(raw, pinhole_rays(*camera, *mask.shape), "mask", files["normal"])
        if "albedo" in wanted:
            found["albedo"] = clean_share(read["albedo"], mask, bad, files["albedo"], "albedo")
        if "roughness" in wanted:
            found["roughness"] = clean_share(read["material"][..., 0], mask, bad, files["material"], "roughness")
        if "metallicity" in wanted:
            found["metallicity"] = clean_share(read["material"][..., 1], mask, bad, files["material"], "metallicity")
        return found

    def _colours(self, name: str) -> NDArray[np.float32]:
        return read_exr_colours(self.tree.read(name), name, max_pixels=self.options.max_pixels)

    def _mask(self, name: str) -> Mask:
        channels = read_exr_channels(self.tree.read(name), name, max_pixels=self.options.max_pixels)
        return np.logical_and.reduce([values > 0 for values in channels.values()])
