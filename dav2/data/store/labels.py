"""A stored pseudo-label, of whatever it holds, as numbers and as a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dav2.data.store.depth_codec import decode_disparity
from dav2.data.store.layer_codec import decode_layer
from dav2.maps import Quantity
from dav2.pictures import coloured, leaning


def decode_label(data: bytes, codec: str, bits: int, vmin: float, vmax: float) -> NDArray[np.float32]:
    """Values of a label: disparity float32 (H, W), or normals (H, W, 3).

    Args:
        data: as it lies in its shard.
        codec, bits, vmin, vmax: from its row of the label manifest; of normals the last three say nothing.

    Raises:
        CodecError: the bytes are not what the row says.
    """
    if codec == Quantity.NORMALS:
        return decode_layer(Quantity.NORMALS, data)
    return decode_disparity(data, {"min": vmin, "max": vmax, "bits": int(bits), "codec": codec})


def picture(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What :func:`decode_label` gives, as a picture (H, W, 3)."""
    return leaning(values) if values.ndim == 3 else coloured(values)
