"""A model that sees a large photograph in overlapping tiles, in a memory that does not grow with it.

First the model sees the whole photograph, reduced until its shorter side is that of a tile. Then it sees each tile, and
what a model leaves open is fitted to the map of the whole below that tile (:func:`fitted`): every tile of a relative
model has a scale and a shift of its own. The sum of the tiles by their weights is the map. Beside the photograph and
that map only one tile is in memory.

A tile that the fit would turn upside down contradicts the whole, and the map of the whole takes its place. Models that
begin from noise begin every tile from its part of one noise (:meth:`dav2.families.family.Family.infer_part`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dav2 import families
from dav2.families.family import Model
from dav2.maps import FLOOR, Maps, Quantity
from dav2.predict.tiles import Tile, Tiling, below, cut
from dav2.scores.alignment import least_squares

Map = NDArray[np.float32]
Layer = Maps[Map]
_LIGHT = (Quantity.SHADING, Quantity.RESIDUAL)
_SHORTEST = 1e-6


class Tiled:
    """See :class:`dav2.families.family.Model`; ``input_size`` is that at which the model sees every tile.

    Args:
        model: of any family.
        tiling: how photographs are cut; those no larger than a tile are seen as they are.
    """

    def __init__(self, model: Model, tiling: Tiling) -> None:
        self.model, self.tiling = model, tiling
        self.family = model.family

    @property
    def quantity(self) -> Quantity:
        """What the model predicts."""
        return self.model.quantity

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the model."""
        module = self.model
        return module.parameters() if isinstance(module, nn.Module) else iter(())

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """As the model says it of the photograph as a whole."""
        return self.model.network_shape(height, width, input_size)

    def infer_image(self, rgb: NDArray[np.uint8], input_size: int | None = None) -> Map:
        """Values of the map of one uint8 image (H, W, 3), at its resolution."""
        return self.infer_maps([rgb], input_size)[0].values

    def infer_images(self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None) -> list[Map]:
        """The same for several images."""
        return [each.values for each in self.infer_maps(images, input_size)]

    def infer_maps(self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None) -> list[Layer]:
        """The same with the quantity, and all that is predicted beside it."""
        return [self._tiled(rgb, input_size) for rgb in images]

    def _tiled(self, rgb: NDArray[np.uint8], input_size: int | None) -> Layer:
        shape = (rgb.shape[0], rgb.shape[1])
        tiles = list(cut(shape, self.tiling))
        if len(tiles) == 1:
            return self.model.infer_maps([rgb], input_size)[0]
        whole = self.model.infer_maps([_reduced(rgb, self.tiling.side)], input_size)[0]
        family = families.of_model(self.model)
        sums = _empty(whole, shape)
        for tile in tiles:
            part = np.ascontiguousarray(rgb[tile.rows, tile.columns])
            found = family.infer_part(self.model, part, (tile.rows.start, tile.columns.start), shape, input_size)
            _add(sums, fitted(found, _below(whole, tile, shape)), tile)
        return _finished(sums)


def fitted(part: Layer, whole: Layer) -> Layer:
    """Maps of a tile in the unit of those of the whole photograph there.

    Depth up to scale and shift by least squares in its own space, where both are free: disparity, depth, or its
    logarithm. Metres by one factor, the mean ratio of logarithms. Shading and residual by one factor for both. All
    else has nothing open and stays as it is.
    """
    layers, there = {each.quantity: each for each in part.every}, {each.quantity: each for each in whole.every}
    if part.quantity.is_depth:
        scale, shift = _of_depth(part.quantity, part.values, whole.values)
        if scale <= 0:
            return whole
        return _changed(part, scale, shift)
    light = [name for name in _LIGHT if name in layers]
    if light:
        both = sum(float((layers[name].values * there[name].values).sum(dtype=np.float64)) for name in light)
        own = sum(float(np.square(layers[name].values).sum(dtype=np.float64)) for name in light)
        factor = both / own if own > 0 else 1.0
        layers |= {name: _changed(layers[name], factor, 0.0) for name in light}
    first, *others = layers.values()
    return replace(first, beside=tuple(others))


def _of_depth(quantity: Quantity, part: Map, whole: Map) -> tuple[float, float]:
    if quantity is Quantity.METRES:
        ratio = np.log(np.maximum(whole, FLOOR)) - np.log(np.maximum(part, FLOOR))
        return float(np.exp(ratio.mean(dtype=np.float64))), 0.0
    one, other = torch.from_numpy(part), torch.from_numpy(np.ascontiguousarray(whole))
    scale, shift = least_squares(one, other, torch.ones_like(one, dtype=torch.bool))
    return float(scale), float(shift)


def _changed(maps: Layer, scale: float, shift: float) -> Layer:
    values = (maps.values * np.float32(scale) + np.float32(shift)).astype(np.float32, copy=False)
    spread = None if maps.uncertainty is None else maps.uncertainty * np.float32(abs(scale))
    return Maps(maps.quantity, values, spread, maps.colour_space)


def _reduced(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The photograph with ``side`` pixels at its shorter side, or as it is."""
    height, width = rgb.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return rgb
    small = cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def _empty(like: Layer, shape: tuple[int, int]) -> list[Layer]:
    def zeros(values: Map) -> Map:
        return np.zeros((*values.shape[:-2], *shape), np.float32)

    return [
        Maps(
            each.quantity,
            zeros(each.values),
            None if each.uncertainty is None else zeros(each.uncertainty),
            each.colour_space,
        )
        for each in like.every
    ]


def _below(whole: Layer, tile: Tile, shape: tuple[int, int]) -> Layer:
    def there(each: Layer) -> Layer:
        spread = None if each.uncertainty is None else below(each.uncertainty, tile, shape)
        return Maps(each.quantity, below(each.values, tile, shape), spread, each.colour_space)

    first, *others = map(there, whole.every)
    return replace(first, beside=tuple(others))


def _add(sums: list[Layer], part: Layer, tile: Tile) -> None:
    for total, each in zip(sums, part.every, strict=True):
        total.values[..., tile.rows, tile.columns] += each.values * tile.weight
        if total.uncertainty is not None and each.uncertainty is not None:
            total.uncertainty[tile.rows, tile.columns] += each.uncertainty * tile.weight


def _finished(sums: list[Layer]) -> Layer:
    for each in sums:
        if each.quantity is Quantity.NORMALS:
            # Averages of unit vectors are shorter; row by row, so that no copy of the map is made.
            for row in range(each.values.shape[1]):
                line = each.values[:, row]
                line /= np.linalg.norm(line, axis=0).clip(_SHORTEST)
        elif not each.quantity.is_depth:
            each.values.clip(0, 1, out=each.values)
    first, *others = sums
    return replace(first, beside=tuple(others))
