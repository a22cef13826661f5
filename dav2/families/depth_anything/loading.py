"""``dav2.load``: a model from wherever its weights are."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import cast

import torch

from dav2 import machine
from dav2.families.depth_anything.dinov2 import DinoV2
from dav2.families.depth_anything.foreign import encoder_state, load_hugging_face, load_official
from dav2.families.depth_anything.model import DepthAnything, ModelConfig, build
from dav2.families.depth_anything.sizes import PATCH, SIZES
from dav2.families.depth_anything.weights import CONFIG, WEIGHTS, WeightsError, assign, empty_model, load_directory
from dav2.memory import keep_freed_memory
from dav2.tf32 import allow_tf32

DEFAULT_REGISTRY = "sqlite:///.dav2/mlflow.db"


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    max_depth: float | None = None,
) -> DepthAnything:
    """A model in evaluation mode, ready for ``infer_image``.

    On the CPU the process is told to keep memory that it frees (:func:`dav2.memory.keep_freed_memory`). A model loaded
    in float32 switches TF32 off in this process (:func:`dav2.tf32.allow_tf32`).

    Args:
        source: a model directory, a published ``.pth`` file, a Hugging Face folder, ``models:/name@alias`` of the
            MLflow registry, or a size, which gives random weights.
        device: where it runs; ``None`` takes the first of CUDA, MPS and CPU that is there.
        dtype: precision of its parameters and of inference: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (as ``None``),
            bfloat16 where the device multiplies in it and float32 elsewhere (:func:`dav2.machine.precision`). Load in
            float32 what is to be trained or saved again.
        max_depth: range in metres, for a file that holds a metric model and does not say so.

    Raises:
        WeightsError: there is no model there, or it is damaged, unsafe or of no known size.
        MachineError: there is no such device here.
    """
    model = _read(str(source), max_depth).eval()
    target = machine.device(device)
    if target.type == "cpu":
        keep_freed_memory()
    precision = _dtype(dtype, target)
    if precision == torch.float32:
        allow_tf32(False)
    return model.to(target, precision)


def load_encoder(source: str | Path, size: str | None = None) -> DinoV2:
    """The encoder alone, in float32 on the CPU.

    Args:
        source: a DINOv2 hub file, a timm file (``.safetensors`` or ``.pth``), or anything that :func:`load` takes.
        size: the size it must have, if that is known.

    Raises:
        WeightsError: there is no encoder there, or it is of another size.
    """
    path = Path(source)
    if path.is_file():
        state, found = encoder_state(path)
        model = empty_model(ModelConfig(found, None, PATCH))
        assign(model, state, str(path), model.encoder)
    else:
        model = _read(str(source), None)
        found = model.config.size
    if size is not None and found != size:
        raise WeightsError(f"{source} holds an encoder of size {found}, not {size}")
    return model.encoder.eval()


def _dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "fp16":
        return torch.float16
    if dtype not in (None, "auto", "fp32", "bf16"):
        raise ValueError(f"no dtype '{dtype}'; there are: auto, fp32, bf16, fp16")
    chosen = machine.precision("auto" if dtype is None else cast(machine.Setting, dtype), device)
    if chosen.warning:
        warnings.warn(chosen.warning, stacklevel=3)
    return chosen.dtype


def _read(source: str, max_depth: float | None) -> DepthAnything:
    if source in SIZES:
        return build(source, max_depth)
    if source.startswith("models:/"):
        return load_directory(_download(source))
    path = Path(source)
    if path.is_dir():
        return _read_directory(path)
    if path.is_file():
        if path.name == WEIGHTS:
            return _read_directory(path.parent)
        return load_official(path, max_depth)
    raise WeightsError(
        f"no model at {source}; expected a model directory, a .pth file, a Hugging Face folder, models:/name@alias "
        f"or a size ({', '.join(SIZES)})"
    )


def _read_directory(path: Path) -> DepthAnything:
    try:
        kind = json.loads((path / CONFIG).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    return load_hugging_face(path) if kind == "depth_anything" else load_directory(path)


def _download(uri: str) -> Path:
    """Folder of the model directory inside a registered MLflow model."""
    import mlflow

    registry = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_REGISTRY)
    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=registry))
    except mlflow.exceptions.MlflowException as error:
        raise WeightsError(f"{uri} cannot be read from the registry at {registry}: {error.message}") from None
    found = sorted(root.rglob(WEIGHTS))
    if len(found) != 1:
        raise WeightsError(f"{uri} holds {len(found)} model directories; expected one with {WEIGHTS}")
    return found[0].parent
