"""Photographs with depth of one's own, in whatever folders and files they lie.

The options say where image, depth, mask and camera of a frame are, by patterns of file names or by a table, and what
the numbers of a depth file mean. ``docs/own-data.md`` walks through an example.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dav2.data.frame import Frame, FrameError, Intrinsics, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.cameras import camera_of, read_camera
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.maps import read_map
from dav2.data.raw.sources.pairing import Row, by_patterns, by_table
from dav2.data.raw.sources.patterns import Pattern

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
SPLITS = ("train", "val", "test")


class PairsOptions(Options):
    """Where the files of a frame are, and what a depth file holds."""

    image: str | None = None
    """Pattern of the images, such as ``{scene}/rgb/{frame}.jpg``."""
    depth: str | None = None
    """Pattern of the depth files; parts of the same name tie it to an image."""
    mask: str | None = None
    """Pattern of masks: where one is 0, depth is unknown."""
    table: str | None = None
    """Instead of patterns, a CSV (or TSV, or parquet) file in the data set with columns ``image``, ``depth`` and, where
    there are such, ``mask``, ``camera`` (a file), ``fx``, ``fy``, ``cx``, ``cy``, ``scene``, ``split``."""
    camera: str | tuple[float, float, float, float] | None = None
    """Pattern of camera files, or (fx, fy, cx, cy) in pixels for all frames."""
    kind: Literal["depth", "distance", "disparity"] = "depth"
    """``depth`` along the optical axis, ``distance`` along the ray through the pixel, or stereo ``disparity``."""
    unit: float | Literal["m", "cm", "mm"] = 1.0
    """Metres of one stored unit; of disparity, pixels of one."""
    baseline: float | None = Field(default=None, gt=0)
    """Metres between the cameras of a stereo pair."""
    focal: float | None = Field(default=None, gt=0)
    """Pixels; of disparity, where there is no camera."""
    invalid: tuple[float, ...] = (0.0,)
    """Stored numbers that mean that nothing is known; NaN, infinity and what is not above 0 always mean it."""
    sky: float | None = None
    """Stored number that means sky; larger ones mean it too."""
    range: tuple[float, float] | None = None
    """Metres (least, greatest) outside of which depth is unknown."""
    metric: bool = True
    """Whether the unit is metres; ``false`` where it is arbitrary in each scene."""
    dataset: str | None = None
    """Array of an HDF5 or NPZ file with several."""
    channel: str = "Z"
    """Channel of an EXR file with several."""
    licence: str = "unknown"
    """Recorded with every frame."""

    @property
    def scale(self) -> float:
        """What a stored number is multiplied with."""
        return UNITS[self.unit] if isinstance(self.unit, str) else self.unit

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.table is None) == (self.image is None or self.depth is None):
            raise ValueError("say 'image' and 'depth' (patterns), or 'table', and not both")
        if self.table is not None and (self.image, self.depth, self.mask) != (None, None, None):
            raise ValueError("with 'table' there are no patterns; give it the columns image, depth, mask")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"unit must be above 0 (metres of one stored unit, or m, cm, mm), not {self.unit}")
        if self.kind == "disparity" and (self.baseline is None or (self.focal is None and self.camera is None)):
            raise ValueError("disparity needs 'baseline' in metres, and 'focal' or 'camera' in pixels")
        if self.kind == "distance" and self.camera is None and self.table is None:
            raise ValueError("distance along the ray needs 'camera', to become depth along the axis")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range must be (least, greatest), not {self.range}")
        return self


class Pairs(Reader[PairsOptions]):
    """Photographs with depth of one's own."""

    rules_name = "pairs"
    options_type = PairsOptions

    def __init__(self, path: str, name: str, options: dict[str, object]) -> None:
        super().__init__(path, name, options)
        self.metric = self.options.metric  # type: ignore[misc]
        self._halves_of: dict[str, tuple[object, str]] = {}

    @property
    def licence(self) -> str:
        """As the options state it."""
        return self.options.licence

    def items(self, names: list[str]) -> list[Item]:
        """Rows of the table, or files that fit the patterns together; what fits none is told."""
        options = self.options
        if options.table is not None:
            pairing = by_table(self.tree, options.table, names)
        else:
            given = {"image": options.image, "depth": options.depth, "mask": options.mask, "camera": options.camera}
            patterns = {kind: Pattern(text, kind) for kind, text in given.items() if isinstance(text, str)}
            pairing = by_patterns(names, patterns)
        self._halves_of = pairing.halves
        self._spoiled += pairing.spoiled
        return [self._item(row) for row in pairing.rows]

    def _item(self, row: Row) -> Item:
        extra: dict[str, object] = {"mask": True} if row.mask is not None else {}
        if row.camera_file is not None:
            extra["camera_file"] = True
        elif row.camera is not None or isinstance(self.options.camera, tuple):
            extra["camera"] = list(row.camera or self.options.camera or ())
        split = row.split.lower() if row.split.lower() in SPLITS else ""
        return Item(make_key(self.name, row.scene, row.frame), row.scene, split, row.files, extra)

    def part(self, name: str) -> tuple[object, str] | None:
        """As the patterns or the table paired them."""
        return self._halves_of.get(name)

    def load(self, item: Item) -> Frame:
        """Planar depth in metres by what the options say of the stored numbers; out of range, masked and invalid is
        unknown.

        Raises:
            FrameError: files differ in size, or a camera is needed and not there.
        """
        image, options = self.image(item.paths[0]), self.options
        stored = self._map(item.paths[1])
        known = np.isfinite(stored) & (stored > 0) & ~np.isin(stored, options.invalid)
        if "mask" in item.extra:
            mask = self._map(item.paths[2])
            if mask.shape != stored.shape:
                raise FrameError(f"{item.paths[2]}: the mask is {mask.shape}, the depth {stored.shape}")
            known &= mask != 0
        camera = self._camera(item)
        depth = self._metres(np.where(known, stored, np.nan).astype(np.float64), camera, item)
        if options.range is not None:
            depth[(depth < options.range[0]) | (depth > options.range[1])] = np.nan
        frame = self.labelled(item, image, depth.astype(np.float32), camera)
        if options.sky is not None and frame.depth is not None:
            # After cleaning, which knows no infinity but by a rule.
            frame.depth[known & (stored >= options.sky)] = np.inf
        return frame

    def _map(self, name: str) -> NDArray[Any]:
        options = self.options
        limits = {"max_pixels": options.max_pixels, "dataset": options.dataset, "channel": options.channel}
        return read_map(self.tree.read(name), name, **limits)  # type: ignore[arg-type]

    def _metres(self, stored: NDArray[np.float64], camera: Intrinsics | None, item: Item) -> NDArray[np.float64]:
        """Planar depth (H, W) of stored numbers, NaN where nothing is known."""
        values = stored * self.options.scale
        if self.options.kind == "disparity":
            focal = self.options.focal or (camera.fx if camera is not None else None)
            if focal is None or self.options.baseline is None:
                raise FrameError(f"{item.paths[1]}: there is no camera to turn disparity into depth with")
            return self.options.baseline * focal / values
        if self.options.kind == "distance":
            if camera is None:
                raise FrameError(f"{item.paths[1]}: there is no camera to turn distance into depth with")
            return values * planar_factor(camera, *values.shape)
        return values

    def _camera(self, item: Item) -> Intrinsics | None:
        if "camera" in item.extra:
            return camera_of(item.extra["camera"], item.paths[0])
        if "camera_file" in item.extra:
            return read_camera(self.tree.read(item.paths[-1]), item.paths[-1])
        return None


def planar_factor(camera: Intrinsics, height: int, width: int) -> NDArray[np.float64]:
    """What distance along the ray is multiplied with to give planar depth, (H, W): 1 / |(x, y, 1)|."""
    x = (np.arange(width) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(height)[:, None] + 0.5 - camera.cy) / camera.fy
    factor: NDArray[np.float64] = 1 / np.sqrt(1 + x**2 + y**2)
    return factor
