"""Packs a model directory with :mod:`dav2.tracking.serving` as an MLflow model that ``mlflow models serve`` runs."""

from __future__ import annotations

import warnings
from importlib import metadata, resources
from pathlib import Path

from dav2.maps import LAYERS, Quantity


def signature() -> object:
    """Photographs in base64 in, maps out; anything else is refused by the server before our code sees it.

    Of the answer ``depth_png`` or ``depth`` is there, as the parameter ``format`` says, or the same of layers.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    inputs = Schema([ColSpec(DataType.string, "image")])
    outputs = Schema([
        ColSpec(DataType.string, "depth_png", required=False),
        ColSpec(Array(Array(DataType.double)), "depth", required=False),
        *(ColSpec(DataType.string, f"{layer.value}_png", required=False) for layer in LAYERS),
        *(ColSpec(_array(layer), layer.value, required=False) for layer in LAYERS),
        ColSpec(DataType.double, "minimum"), ColSpec(DataType.double, "maximum"),
        ColSpec(DataType.long, "width"), ColSpec(DataType.long, "height"), ColSpec(DataType.string, "unit"),
    ])  # fmt: skip
    options = ParamSchema([ParamSpec("format", DataType.string, "png"), ParamSpec("input_size", DataType.long, 0)])
    return ModelSignature(inputs=inputs, outputs=outputs, params=options)


def _array(layer: Quantity) -> object:
    from mlflow.types import DataType
    from mlflow.types.schema import Array

    rows = Array(Array(DataType.double))
    return Array(rows) if layer.channels > 1 else rows


def save_pyfunc(model: Path, out: Path, model_id: str) -> None:
    """Write the MLflow model ``out`` around the model directory ``model``.

    The environment it asks for is this version of dav2 and nothing else; dav2 brings the rest.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    with warnings.catch_warnings():
        # An input example would load the model and run it once, to learn a signature that is known.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            out,
            python_model=str(resources.files("dav2.tracking").joinpath("serving.py")),
            artifacts={"model": str(model.resolve())},
            signature=signature(),
            pip_requirements=[f"dav2=={metadata.version('dav2')}"],
            mlflow_model=Model(model_id=model_id),
        )
