"""The registered model as MLflow serves it: photographs in base64 in, maps as 16-bit PNG or as numbers out.

This file is logged as *code* beside the weights and run by ``mlflow models serve``; nothing is pickled. It needs
nothing but the dav2 package. A request holds one row per photograph with the column ``image`` (JPEG, PNG, WebP … in
base64). The answer holds one row per photograph: ``depth_png`` (16-bit grey PNG in base64, where value / 65535 ×
(maximum − minimum) + minimum is the prediction), ``minimum``, ``maximum``, ``width``, ``height`` and ``unit``
(``m``, or ``relative disparity``). The parameter ``format`` = ``array`` returns ``depth`` as nested lists instead of
``depth_png``; ``input_size`` is the short side that the network sees (0: the model's own).

Models of normals, appearance or light answer with one column a layer: ``normals_png``, ``albedo_png`` … are 16-bit PNG
in which 0 to 65535 is -1 to 1 of normals and 0 to 1 of all else; as ``array`` ``normals``, ``albedo`` … of
(height, width, 3), or (height, width). ``unit`` names the layers, ``minimum`` and ``maximum`` the ends of the range.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from dav2 import families
from dav2.maps import Quantity
from dav2.tracking.layer_answers import layer_answer

FORMATS = ("png", "array")
MOST_IMAGES = 64
LARGEST_INPUT = 2072
"""Short side in pixels beyond which a request is refused: memory grows with its fourth power."""


def _bad_request(message: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(message)


class DepthService(PythonModel):
    """Answers requests; see the module's description for the columns."""

    def load_context(self, context: PythonModelContext) -> None:
        import dav2

        # In float32: what the gates judged is what is served.
        self.model = dav2.load(context.artifacts["model"], dtype="fp32")

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Depth, or the layers, of each row's photograph.

        Raises:
            MlflowException: a request that cannot be answered (HTTP 400); the message says which row and why.
        """
        settings = params or {}
        form, input_size = _form(settings), _input_size(settings, self.model)
        if not len(model_input):
            raise _bad_request("the request holds no image")
        if len(model_input) > MOST_IMAGES:
            raise _bad_request(f"{len(model_input)} images in one request; at most {MOST_IMAGES} are answered")
        photographs = [_photograph(text, row) for row, text in enumerate(model_input["image"])]
        quantity = self.model.quantity
        if not quantity.is_depth:
            return pd.DataFrame([layer_answer(maps, form) for maps in self.model.infer_maps(photographs, input_size)])
        depths = self.model.infer_images(photographs, input_size)
        unit = "m" if quantity is Quantity.METRES else quantity.unit
        return pd.DataFrame([_answer(depth, form, unit) for depth in depths])


def _form(settings: dict[str, object]) -> str:
    form = str(settings.get("format", "png"))
    if form not in FORMATS:
        raise _bad_request(f"parameter 'format' is '{form}'; it may be {' or '.join(FORMATS)}")
    return form


def _input_size(settings: dict[str, Any], model: object) -> int | None:
    size = int(settings.get("input_size", 0))
    if size == 0:
        return None
    if size > LARGEST_INPUT:
        raise _bad_request(f"parameter 'input_size' is {size}; it may be 0, or up to {LARGEST_INPUT}")
    try:
        families.of_model(model).check_input_size(model, size)
    except ValueError as error:
        raise _bad_request(f"parameter 'input_size': {error}; 0 is the model's own") from None
    return size


def _photograph(text: object, row: int) -> np.ndarray:
    from dav2.data.frame import FrameError
    from dav2.data.images import decode

    try:
        data = base64.b64decode(str(text).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise _bad_request(f"row {row}: 'image' is not base64 ({error})") from None
    try:
        return decode(data, f"row {row}", max_pixels=50_000_000).rgb
    except FrameError as error:
        raise _bad_request(str(error)) from None


def _answer(depth: np.ndarray, form: str, unit: str) -> dict[str, object]:
    low, high = float(depth.min()), float(depth.max())
    common = {"minimum": low, "maximum": high, "width": depth.shape[1], "height": depth.shape[0], "unit": unit}
    if form == "array":
        return {"depth": depth.tolist(), **common}
    from dav2.data.images import encode_png

    scaled = (depth - low) / max(high - low, 1e-12) * 65535.0
    png = encode_png(np.round(scaled).astype(np.uint16))
    return {"depth_png": base64.b64encode(png).decode("ascii"), **common}


mlflow.models.set_model(DepthService())
