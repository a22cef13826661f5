"""What a served model of normals, appearance or light answers."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.maps import Maps, Quantity


def layer_answer(maps: Maps[NDArray[np.float32]], form: str) -> dict[str, object]:
    """Columns of a photograph whose layers were predicted; see :mod:`dav2.tracking.serving`.

    Args:
        maps: of layers, not of depth.
        form: ``png`` or ``array``.
    """
    low, high = (-1.0, 1.0) if maps.quantity is Quantity.NORMALS else (0.0, 1.0)
    found: dict[str, object] = {}
    for each in maps.every:
        values = np.moveaxis(each.values, 0, -1) if each.values.ndim == 3 else each.values
        if form == "array":
            found[each.quantity.value] = values.tolist()
            continue
        codes = np.round((values.clip(low, high) - low) / (high - low) * 65535).astype(np.uint16)
        # OpenCV, unlike Pillow, writes three channels of 16 bits; it takes them blue first.
        done, data = cv2.imencode(".png", codes[..., ::-1] if codes.ndim == 3 else codes)
        assert done
        found[f"{each.quantity.value}_png"] = base64.b64encode(data.tobytes()).decode("ascii")
    height, width = maps.values.shape[-2:]
    unit = ", ".join(each.quantity.value for each in maps.every)
    return {**found, "minimum": low, "maximum": high, "width": width, "height": height, "unit": unit}
