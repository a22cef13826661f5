"""Layers as targets: resized, cropped and mirrored like their image, unit normals staying unit normals.

Colour space: everything is linear here, as in the shards; whoever trains on gamma-coded values applies the curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dav2.data.feed import transforms
from dav2.data.feed.transforms import Geometry
from dav2.data.frame import known_pixels
from dav2.data.store.layer_codec import PLANES, layer_values
from dav2.maps import Quantity

Map = NDArray[np.float32]

LIGHT = (Quantity.SHADING, Quantity.RESIDUAL)
"""Layers of any range, in one unit."""
LIGHT_QUANTILE = 0.98
_SHORTEST = 0.1
"""Length below which a mean of unit vectors points nowhere: they lay on opposite sides of an edge."""


def place_layer(quantity: Quantity, values: Map, geometry: Geometry) -> Map:
    """A layer float32 (H, W) or (H, W, 3), placed like its image; ``nan`` where less than half of a pixel is known.

    Normals are renormalised after resizing, and under a mirror their x axis turns over as well.
    """
    placed = transforms.place_known(values, geometry)
    if quantity is not Quantity.NORMALS:
        return placed
    length = np.linalg.norm(placed, axis=-1, keepdims=True)
    length[length < _SHORTEST] = np.nan
    placed /= length
    if geometry.flip:
        placed[..., 0] *= -1
    return placed


def light_range(layers: Sequence[Map]) -> float:
    """What shading and residual are both divided by: c = max over them of the 98 % quantile of their known values.

    One divisor for both keeps their ratio, so that albedo · shading + residual is the image up to a scale (Marigold,
    intrinsic decomposition with lighting). Layers without light, or without known pixels, give 1.
    """
    greatest = 0.0
    for values in layers:
        known = values[known_pixels(values)]
        if known.size:
            greatest = max(greatest, float(np.quantile(known, LIGHT_QUANTILE)))
    return greatest if greatest > 0 else 1.0


def layer_targets(
    layers: Sequence[Quantity], codes: NDArray[np.uint16], geometry: Geometry
) -> tuple[Map, NDArray[np.bool_]]:
    """Targets and masks of one crop.

    Args:
        layers: which, in the order of ``codes``.
        codes: uint16 (P, H, W), the planes of :func:`dav2.data.store.layer_codec.layer_codes` one after the other.
        geometry: where the crop lies.

    Returns:
        float32 (C, h, w), the layers' channels one after the other, 0 where unknown: normals are unit vectors, albedo,
        roughness and metallicity linear in [0, 1], shading and residual divided by their common :func:`light_range`
        (of the crop) and clipped to [0, 1]. And bool (L, h, w): where each layer is known.
    """
    placed, first = {}, 0
    for quantity in layers:
        planes = codes[first : first + PLANES[quantity]]
        placed[quantity] = place_layer(quantity, layer_values(quantity, planes), geometry)
        first += PLANES[quantity]
    light = [quantity for quantity in layers if quantity in LIGHT]
    scale = np.float32(light_range([placed[quantity] for quantity in light]))
    targets, masks = [], []
    for quantity, values in placed.items():
        known = known_pixels(values)
        scaled = np.minimum(values / scale, 1) if quantity in LIGHT else values
        masks.append(known)
        filled = np.where(known if scaled.ndim == 2 else known[..., None], scaled, np.float32(0))
        targets += [filled] if filled.ndim == 2 else list(filled.transpose(2, 0, 1))
    return np.stack(targets), np.stack(masks)
