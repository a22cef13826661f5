"""Which way surfaces face, by a model that predicts it: the normals of a point cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dav2.families.family import Model
from dav2.maps import Quantity
from dav2.predict.infer import infer_one


class FromNormals:
    """What a model of normals predicts of the same photograph.

    Args:
        model: predicts normals.

    Raises:
        ValueError: it predicts something else.
    """

    def __init__(self, model: Model) -> None:
        if model.quantity is not Quantity.NORMALS:
            raise ValueError(f"--normals-from needs a model of normals; this one predicts {model.quantity.unit}")
        self.model = model

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Unit vectors in camera axes, float32 (3, H, W), of a photograph uint8 (H, W, 3).

        Raises:
            Exception: whatever the photograph made the model raise.
        """
        return infer_one(self.model, rgb).values
