"""Hypersim (Roberts et al., ICCV 2021): rendered interiors with distance along the ray, in metres.

Layout: ``ai_VVV_NNN/images/scene_cam_XX_{geometry_hdf5,final_preview,final_hdf5}/frame.IIII.*``, unpacked or as the
zips of the download script; beside the scenes ``metadata_camera_parameters.csv`` and
``metadata_images_split_scene_v1.csv`` from the toolkit repository (apple/ml-hypersim).

The stored distance runs along the ray through each pixel. The formula in common use takes one focal length for all
scenes and is wrong for 267 of the 457 public ones, up to 15 % (ai_021_002), since many scenes use another lens or a
tilted one. The toolkit gives the camera of every scene as a matrix M that maps (u, v, 1) to a ray.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import Frame, FrameError, Intrinsics, Layers, make_key
from dav2.data.images import Decoded
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_hdf5
from dav2.data.raw.sources.hypersim_layers import layer_files, read_layers
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.layers import Filter, Mask, pinhole_rays
from dav2.data.raw.sources.tone import tone_map

LEGACY_FOCAL = 886.81
LEGACY_WIDTH = 1024
CAMERAS_CSV = "metadata_camera_parameters.csv"
SPLIT_CSV = "metadata_images_split_scene_v1.csv"
_DEPTH = re.compile(
    r"(?P<root>(?:.*/)?(?P<scene>ai_\d{3}_\d{3})/images/scene_(?P<camera>cam_\d+))_geometry_hdf5/"
    r"frame\.(?P<frame>\d{4})\.depth_meters\.hdf5"
)

_ENTITY = ".render_entity_id.hdf5"
_ROOT = r"(?P<root>(?:.*/)?ai_\d{3}_\d{3}/images/scene_cam_\d+)_final_"
_COLOUR = {
    "tonemap": re.compile(_ROOT + r"preview/frame\.(?P<frame>\d{4})\.tonemap\.jpg"),
    "hdr": re.compile(_ROOT + r"hdf5/frame\.(?P<frame>\d{4})\.color\.hdf5"),
}


class HypersimOptions(Options):
    """Camera, colours, split and layers."""

    legacy_886: bool = False
    """Use one focal length for all scenes, to compare with numbers that were published that way."""
    colour: Literal["tonemap", "hdr"] = "tonemap"
    """``tonemap`` reads the preview JPEG; ``hdr`` applies the toolkit's tone map to the HDR image."""
    official_split: bool = True
    """``false`` holds out scenes by hash instead and needs no split file."""
    layers: tuple[Literal["normals", "albedo", "shading", "residual"], ...] = ()
    """What is read beside depth. With all of the last three the recomposition is tested, which needs the HDR image."""
    bad_layers: Filter = "published"
    """``published`` refuses frames as Marigold's filters do, ``mask`` marks bad pixels unknown."""


class Hypersim(Reader[HypersimOptions]):
    """Rendered interiors; distance along the ray in metres becomes planar depth."""

    rules_name = "hypersim"
    options_type = HypersimOptions

    def items(self, names: list[str]) -> list[Item]:
        """Frames with depth, their camera and split from the two tables of the toolkit.

        Raises:
            SourceError: the table of cameras lacks a scene.
        """
        there = set(names)
        found = [match for match in map(_DEPTH.fullmatch, names) if match]
        if not found:
            return []
        split = self._split(names) if self.options.official_split else {}
        unreleased = 0
        cameras = {} if self.options.legacy_886 else self._cameras(names)
        items = []
        for match in found:
            root, scene, camera, frame = match["root"], match["scene"], match["camera"], match["frame"]
            place = split.get((scene, camera, int(frame)), "")
            if place == "excluded":
                unreleased += 1
                continue
            if not self.options.legacy_886 and scene not in cameras:
                raise SourceError(f"{self.path}: {CAMERAS_CSV} has no scene {scene}; fetch the current file")
            colour = (
                f"{root}_final_preview/frame.{frame}.tonemap.jpg"
                if self.options.colour == "tonemap"
                else f"{root}_final_hdf5/frame.{frame}.color.hdf5"
            )
            entity = f"{root}_geometry_hdf5/frame.{frame}{_ENTITY}"
            layers = layer_files(root, frame, self.options.layers)
            paths = (colour, match[0], *([entity] if entity in there else []), *layers.values())
            extra: dict[str, object] = {} if self.options.legacy_886 else {"m_cam_from_uv": cameras[scene]}
            if layers:
                extra["layers"] = layers
            items.append(Item(make_key(self.name, scene, camera, frame), scene, place, paths, extra))
        self._note(found, split, unreleased)
        return items

    def part(self, name: str) -> tuple[object, str] | None:
        """Halves of one frame share the camera's path and the number."""
        for pattern, kind in ((_COLOUR[self.options.colour], "image"), (_DEPTH, "depth")):
            if match := pattern.fullmatch(name):
                return (match["root"], match["frame"]), kind
        return None

    def _note(self, found: list[re.Match[str]], split: dict[tuple[str, str, int], str], unreleased: int) -> None:
        """Say what the split file leaves out, and what it lists of the cameras that are there but is absent."""
        if unreleased:
            self._notes.append(f"left out: {unreleased} frames that {SPLIT_CSV} does not release")
        present = {(match["scene"], match["camera"], int(match["frame"])) for match in found}
        cameras = {frame[:2] for frame in present}
        released = {frame for frame, place in split.items() if place != "excluded" and frame[:2] in cameras}
        if released - present:
            count = len(released - present)
            self._notes.append(
                f"absent: {count} frames of cameras that are there are listed in {SPLIT_CSV} but not there"
            )

    def load(self, item: Item) -> Frame:
        """Planar depth in metres from the distance along the rays; pixels of no entity are unknown.

        Raises:
            FrameError: files differ in size, or a filter that was asked for refuses the frame.
        """
        distance = self._array(item.paths[1]).astype(np.float32)
        if distance.ndim != 2:
            raise FrameError(f"{item.paths[1]}: depth must be (H, W), not {distance.shape}")
        entity = next((self._array(name) for name in item.paths if name.endswith(_ENTITY)), None)
        if entity is not None:
            if entity.shape != distance.shape:
                raise FrameError(f"{item.paths[1]}: depth is {distance.shape}, entities {entity.shape}")
            distance[entity == -1] = np.nan
        height, width = distance.shape
        intrinsics: Intrinsics | None
        if self.options.legacy_886:
            factor, intrinsics = legacy_factor(height, width)
        else:
            matrix = tuple(item.extra["m_cam_from_uv"])
            factor, intrinsics = planar_factor(matrix, height, width), intrinsics_of(matrix, height, width)
        frame = self.labelled(item, self._colour(item.paths[0], entity), distance * factor, intrinsics)
        if "layers" not in item.extra:
            return frame
        valid = np.ones(frame.rgb.shape[:2], np.bool_) if entity is None else entity != -1
        return replace(frame, **self._layers(item, frame, valid))

    def _layers(self, item: Item, frame: Frame, valid: Mask) -> Layers:
        """The layers that were asked for, by name."""
        files: dict[str, str] = item.extra["layers"]
        read = {layer: self._array(name).astype(np.float32) for layer, name in files.items()}
        rays, bad = self._rays(item, frame), self.options.bad_layers
        try:
            return read_layers(read, files, rays, valid, bad, item.split == "test")
        except FrameError as error:
            raise FrameError(f"{item.key}: {error}") from None

    def _rays(self, item: Item, frame: Frame) -> NDArray[np.float64]:
        """Unit rays (H, W, 3) in camera axes x right, y up, z to the viewer."""
        height, width = frame.rgb.shape[:2]
        if "m_cam_from_uv" in item.extra:
            return camera_rays(tuple(item.extra["m_cam_from_uv"]), height, width)
        return pinhole_rays(*legacy_factor(height, width)[1], height, width)

    def _colour(self, name: str, entity: NDArray[np.generic] | None) -> Decoded:
        if self.options.colour == "tonemap":
            return self.image(name)
        linear = self._array(name).astype(np.float32)
        if linear.ndim != 3 or linear.shape[2] != 3:
            raise FrameError(f"{name}: colour must be (H, W, 3), not {linear.shape}")
        valid = np.ones(linear.shape[:2], bool) if entity is None else entity != -1
        if valid.shape != linear.shape[:2]:
            raise FrameError(f"{name}: colour is {linear.shape}, entities {valid.shape}")
        return Decoded(tone_map(linear, valid), None)

    def _array(self, name: str) -> NDArray[np.generic]:
        return read_hdf5(self.tree.read(name), name, max_pixels=self.options.max_pixels)

    def _cameras(self, names: list[str]) -> dict[str, tuple[float, ...]]:
        """Scene → the nine numbers of ``M_cam_from_uv``, row by row."""
        columns = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
        try:
            return {
                row["scene_name"]: tuple(float(row[column]) for column in columns)
                for row in self._table(names, CAMERAS_CSV, "contrib/mikeroberts3000", "legacy_886")
            }
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{self.path}: {CAMERAS_CSV} has no usable column {error}") from error

    def _split(self, names: list[str]) -> dict[tuple[str, str, int], str]:
        """(scene, camera, frame) → split, or ``excluded`` for frames that were never released."""
        table = {}
        folder = "evermotion_dataset/analysis"
        try:
            for row in self._table(names, SPLIT_CSV, folder, "official_split: false"):
                public = row["included_in_public_release"].strip().lower() == "true"
                place = row["split_partition_name"] if public else "excluded"
                table[row["scene_name"], row["camera_name"], int(row["frame_id"])] = place
        except (KeyError, AttributeError, ValueError) as error:
            raise SourceError(f"{self.path}: {SPLIT_CSV} has no usable column {error}") from error
        return table

    def _table(self, names: list[str], file: str, folder: str, instead: str) -> list[dict[str, str]]:
        name = next((n for n in names if n.rpartition("/")[2] == file), None)
        if name is None:
            raise SourceError(
                f"{self.path}: {file} is missing; copy it there from {folder}/ of github.com/apple/ml-hypersim, "
                f"or set the option '{instead}'"
            )
        try:
            return list(csv.DictReader(io.StringIO(self.text(name))))
        except csv.Error as error:
            raise SourceError(f"{self.path}: {name} is no table: {error}") from error


@lru_cache(maxsize=8)
def planar_factor(matrix: tuple[float, ...], height: int, width: int) -> NDArray[np.float32]:
    """What distance along the ray is multiplied with to give planar depth, float32 (H, W).

    ``ray = M (u, v, 1)`` with u from left to right over −1 + 1/W … 1 − 1/W and v from top to bottom over
    1 − 1/H … −1 + 1/H; the camera looks along −z, so the factor is −ray_z / |ray|. Source: apple/ml-hypersim,
    contrib/mikeroberts3000.
    """
    factor: NDArray[np.float32] = (-camera_rays(matrix, height, width)[..., 2]).astype(np.float32)
    return factor


def camera_rays(matrix: tuple[float, ...], height: int, width: int) -> NDArray[np.float64]:
    """Unit rays of :func:`planar_factor` through the pixel centres, float64 (H, W, 3)."""
    u = (2 * np.arange(width) + 1) / width - 1
    v = 1 - (2 * np.arange(height) + 1) / height
    uv1 = np.stack([*np.meshgrid(u, v), np.ones((height, width))], axis=-1)
    rays = uv1 @ np.asarray(matrix, np.float64).reshape(3, 3).T
    return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def intrinsics_of(matrix: tuple[float, ...], height: int, width: int) -> Intrinsics | None:
    """Pinhole camera of ``M_cam_from_uv``; ``None`` where the lens is tilted or skewed and no pinhole describes it."""
    m = np.asarray(matrix, np.float64).reshape(3, 3)
    tolerance = 1e-6 * abs(m[0, 0])
    if m[2, 2] == 0 or max(abs(m[2, 0]), abs(m[2, 1]), abs(m[0, 1]), abs(m[1, 0])) > tolerance:
        return None
    m = m / -m[2, 2]
    return Intrinsics(
        fx=float(width / (2 * m[0, 0])),
        fy=float(height / (2 * m[1, 1])),
        cx=float(width / 2 * (1 - m[0, 2] / m[0, 0])),
        cy=float(height / 2 * (1 + m[1, 2] / m[1, 1])),
    )


@lru_cache(maxsize=8)
def _legacy(height: int, width: int) -> NDArray[np.float32]:
    focal = LEGACY_FOCAL * width / LEGACY_WIDTH
    x = np.arange(width) - (width - 1) / 2
    y = np.arange(height)[:, None] - (height - 1) / 2
    return (focal / np.sqrt(x**2 + y**2 + focal**2)).astype(np.float32)


def legacy_factor(height: int, width: int) -> tuple[NDArray[np.float32], Intrinsics]:
    """``f / |(x, y, f)|`` with f = 886.81 px at width 1024, as Depth Anything V2, Marigold and ZoeDepth have it."""
    focal = LEGACY_FOCAL * width / LEGACY_WIDTH
    return _legacy(height, width), Intrinsics(focal, focal, width / 2, height / 2)
