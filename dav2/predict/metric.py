"""Metres out of a map that leaves scale and shift open: by depths known at some pixels, or by another model's.

Both are fitted where the map is affine: 1/metres to disparity, ln metres to log depth, metres to depth. A metric map
has one factor to correct, which is a shift of its logarithm. What the fit puts behind the camera, or beyond anything
known, has no true distance: metres are held between a tenth of the nearest and ten times the farthest depth that was
fitted to.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dav2.data.frame import FrameError
from dav2.data.raw.sources.maps import SUFFIXES, read_map
from dav2.families.family import Model
from dav2.files import open_regular, read_bounded
from dav2.maps import Maps, Quantity
from dav2.predict.infer import infer_one
from dav2.predict.inputs import Input
from dav2.predict.robust import Line, line, offset
from dav2.scores.alignment import least_squares

Map = NDArray[np.float32]
MAX_BYTES = 512 * 2**20
"""Bytes of a file of known depths."""
MILLIMETRES = 1000.0
BEYOND = 10.0
"""How much nearer than the nearest, and farther than the farthest known depth a pixel may come to lie."""
FEW = 10
"""Known depths below which a remark says how many there are."""
SLACK = 0.02
"""Largest difference between the aspects of a photograph and of the depths known of it."""


class Measure(Protocol):
    """How a prediction becomes metres."""

    def __call__(self, source: Input, rgb: NDArray[np.uint8], maps: Maps[Map]) -> tuple[Maps[Map], str]:
        """Metres (H, W) of a photograph, and a remark for people, or an empty one.

        Raises:
            ValueError: no metres can be told.
        """
        ...


class FromPoints:
    """Depths known at some pixels of each photograph.

    Args:
        path: 16-bit PNG in millimetres, or NPY and the like in metres, (h, w) of the photograph's aspect; 0, ``nan``
            and ``inf`` are not known. Or a folder of these, named like the photographs.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ValueError(f"no known depths at {path}")
        self.path = path

    def __call__(self, source: Input, rgb: NDArray[np.uint8], maps: Maps[Map]) -> tuple[Maps[Map], str]:
        """See :class:`Measure`."""
        file = self._file(source)
        known = read_known(file)
        rows, columns = _places(known, rgb.shape[:2], file)
        return from_points(maps, (rows, columns), known[np.isfinite(known)])

    def _file(self, source: Input) -> Path:
        if not self.path.is_dir():
            return self.path
        files = [self.path / f"{source.name}{ending}" for ending in SUFFIXES]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise ValueError(f"no known depths of it in {self.path}: expected {files[0].name} or {source.name}.npy")
        return found


class FromModel:
    """What a metric model predicts of the same photograph.

    Args:
        model: predicts metres.
    """

    def __init__(self, model: Model) -> None:
        if model.quantity is not Quantity.METRES:
            raise ValueError(f"--metric-from needs a metric model; this one predicts {model.quantity.unit}")
        self.model = model

    def __call__(self, source: Input, rgb: NDArray[np.uint8], maps: Maps[Map]) -> tuple[Maps[Map], str]:
        """See :class:`Measure`."""
        return from_map(maps, infer_one(self.model, rgb).values), ""


def read_known(file: Path) -> Map:
    """Known depths in metres, float32 (h, w), ``nan`` where there are none; whole numbers count millimetres.

    Raises:
        ValueError: it cannot be read, or holds negative depths.
    """
    try:
        with open_regular(file) as opened:
            values = read_map(read_bounded(opened, MAX_BYTES, str(file)), str(file))
    except FrameError as error:
        raise ValueError(str(error)) from None
    if values.dtype == np.uint8:
        raise ValueError(
            f"{file}: has 8 bits a pixel; known depths are 16-bit millimetres, or metres in floating point"
        )
    whole = np.issubdtype(values.dtype, np.integer)
    metres = values.astype(np.float64) / MILLIMETRES if whole else values.astype(np.float64)
    if (metres < 0).any():
        raise ValueError(f"{file}: has negative depths; 0 says that a depth is not known")
    metres[~np.isfinite(metres) | (metres == 0)] = np.nan
    return metres.astype(np.float32)


def _places(known: Map, shape: tuple[int, ...], file: Path) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the photograph at which depths are known."""
    height, width = known.shape
    if abs(height * shape[1] / (width * shape[0]) - 1) > SLACK:
        raise ValueError(
            f"{file}: {width} × {height} pixels, the photograph has {shape[1]} × {shape[0]}; both need one aspect"
        )
    rows, columns = np.nonzero(np.isfinite(known))
    if len(rows) == 0:
        raise ValueError(f"{file}: no depth is known at any pixel")
    places = [
        np.minimum(((at + 0.5) * (full / small)).astype(np.intp), full - 1)
        for at, full, small in ((rows, shape[0], height), (columns, shape[1], width))
    ]
    return places[0], places[1]


def from_points(
    maps: Maps[Map], places: tuple[NDArray[np.intp], NDArray[np.intp]], metres: Map
) -> tuple[Maps[Map], str]:
    """Metres of a map by depths known at some of its pixels, robustly: up to half of them may be wrong.

    Args:
        maps: depth of any kind, (H, W).
        places: rows and columns, (N,) each.
        metres: (N,), above 0.

    Returns:
        The map in metres, and a remark where it rests on few depths or many contradict it.

    Raises:
        ValueError: the depths do not say scale and shift, or contradict the map.
    """
    seen = maps.values[places].astype(np.float64)
    wanted = _to_space(metres, maps.quantity).astype(np.float64)
    if maps.quantity is Quantity.METRES:
        found: Line | None = offset(np.log(np.maximum(seen, 1e-6)), wanted)
    else:
        if len(seen) < 2:
            raise ValueError("one known depth says no scale and shift; a relative map needs two, at different nearness")
        found = line(seen, wanted)
    if found is None:
        raise ValueError("the map is the same at all known depths, which says no scale; more of the scene is needed")
    if found.scale <= 0:
        raise ValueError("the known depths contradict the map: what it shows nearer they say is farther away")
    remark = ""
    if len(seen) < FEW:
        remark = f"metres rest on {len(seen)} known depths"
    elif found.agree < 0.5:
        remark = f"only {found.agree:.0%} of the known depths agree with the map"
    return _metres(maps, found.scale, found.shift, (float(metres.min()), float(metres.max()))), remark


def from_map(maps: Maps[Map], metres: Map) -> Maps[Map]:
    """Metres of a relative map by least squares to metres at every pixel, in closed form.

    Args:
        maps: relative depth of any kind, (H, W).
        metres: float32 (H, W), above 0.

    Raises:
        ValueError: the map is metric already, is constant, or contradicts the metres.
    """
    if maps.quantity is Quantity.METRES:
        raise ValueError("the model predicts metres already; --metric-from is for relative models")
    wanted = torch.from_numpy(_to_space(np.maximum(metres, 1e-6), maps.quantity))
    seen = torch.from_numpy(maps.values)
    scale, shift = (float(each) for each in least_squares(seen, wanted, torch.ones_like(seen, dtype=torch.bool)))
    if not scale > 0:
        raise ValueError("the metric model contradicts the map, or one of both is constant: no scale can be told")
    return _metres(maps, scale, shift, (float(metres.min()), float(metres.max())))


def _to_space(metres: NDArray[np.floating], quantity: Quantity) -> NDArray[np.floating]:
    """Where a map of ``quantity`` is affine in depth; of metres, which have only a factor, the logarithm."""
    if quantity is Quantity.DISPARITY:
        return np.asarray(1 / metres)
    return metres if quantity is Quantity.DEPTH else np.asarray(np.log(metres))


def _metres(maps: Maps[Map], scale: float, shift: float, known: tuple[float, float]) -> Maps[Map]:
    """The fitted map in metres, with its uncertainty to first order."""
    low, high = known[0] / BEYOND, known[1] * BEYOND
    spread = maps.uncertainty
    if maps.quantity is Quantity.METRES:
        factor = np.float32(np.exp(shift))
        values = maps.values * factor
        steep: Map | np.float32 = factor
    else:
        fitted = maps.values * np.float32(scale) + np.float32(shift)
        if maps.quantity is Quantity.DISPARITY:
            values = 1 / np.clip(fitted, 1 / high, 1 / low)
            steep = np.float32(scale) * values**2
        elif maps.quantity is Quantity.LOG_DEPTH:
            values = np.exp(np.clip(fitted, np.log(low), np.log(high)))
            steep = np.float32(scale) * values
        else:
            values, steep = fitted, np.float32(scale)
    values = np.clip(values, low, high).astype(np.float32)
    return replace(
        maps,
        quantity=Quantity.METRES,
        values=values,
        uncertainty=None if spread is None else (spread * steep).astype(np.float32),
    )
