"""Images through the model, past those that it cannot take."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dav2.families.family import Model
from dav2.maps import Maps

NOT_FINITE = "the model predicted values that are not finite; try --dtype fp32, or its weights are damaged"


def infer(
    model: Model, images: list[NDArray[np.uint8]], input_size: int | None
) -> list[Maps[NDArray[np.float32]] | Exception]:
    """A map for each image, or why there is none.

    A batch that fails is halved until the image that it fails for, or that alone is too large for the memory, is found.
    """
    try:
        maps = model.infer_maps(images, input_size)
    except Exception as error:
        if len(images) == 1:
            # Without its traceback, which would keep the arrays of the failed attempt.
            return [error.with_traceback(None)]
        half = len(images) // 2
    else:
        return [each if _finite(each) else ValueError(NOT_FINITE) for each in maps]
    return infer(model, images[:half], input_size) + infer(model, images[half:], input_size)


def infer_one(model: Model, rgb: NDArray[np.uint8]) -> Maps[NDArray[np.float32]]:
    """Maps of a photograph, uint8 (H, W, 3), at the size that the model sees unless told otherwise.

    Raises:
        Exception: whatever the photograph made the model raise.
    """
    found = infer(model, [rgb], None)[0]
    if isinstance(found, Exception):
        raise found
    return found


def _finite(maps: Maps[NDArray[np.float32]]) -> bool:
    return all(bool(np.isfinite(each.values).all()) for each in maps.every)
