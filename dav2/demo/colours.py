"""One scale of colours for the maps of several models, so that the same colour means the same in every picture.

Metric maps are coloured by 1 / metres over one range: a colour is a distance. As soon as a map without a unit is among
them, every map is first freed of scale and shift as the loss of Depth Anything does it (arXiv 2401.10891, equation 3):
less its median, over its mean absolute deviation. A colour is then a place in the order from far to near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dav2.maps import Maps, Quantity
from dav2.pictures import coloured

Map = NDArray[np.float32]
ENDS = (1.0, 99.0)
"""Percentiles of all pixels of all maps at which the scale ends; a few odd pixels must not decide it."""
TICKS = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps on one scale.

    Attributes:
        maps: float32 (H, W) each, larger is nearer, comparable with one another.
        low, high: the values of the first and the last colour.
        metric: whether a value is 1 / metres.
    """

    maps: list[Map]
    low: float
    high: float
    metric: bool

    def pictures(self) -> list[NDArray[np.uint8]]:
        """Each map in colours, uint8 (H, W, 3)."""
        return [coloured(each, self.low, self.high) for each in self.maps]

    def ticks(self) -> list[str]:
        """Words at equal distances along the legend, from far to near: metres, or the two ends alone."""
        if not self.metric:
            return ["far", "near"]
        values = np.linspace(self.low, self.high, TICKS)
        return [f"{1 / value:.3g} m" if value > 0 else "∞" for value in values]


def common_scale(maps: Sequence[Maps[Map]]) -> Scale:
    """The scale of ``maps``, of which there must be one at least.

    Raises:
        ValueError: one does not say how far things are.
    """
    metric = all(each.quantity is Quantity.METRES for each in maps)
    near = [each.nearness() for each in maps]
    if not metric:
        near = [_without_scale(each) for each in near]
    low, high = np.percentile(np.concatenate([each.ravel() for each in near]), ENDS)
    return Scale(near, float(low), float(high), metric)


def _without_scale(values: Map) -> Map:
    """Less the median, over the mean absolute deviation; of a flat map zeros."""
    centred = values - np.median(values)
    deviation = float(np.abs(centred).mean())
    return centred / deviation if deviation > 0 else centred
