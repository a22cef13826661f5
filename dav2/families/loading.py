"""``dav2.load``: a model of any family from wherever its weights are."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from dav2 import families, machine
from dav2.failures import reason
from dav2.families.directory import WeightsError, peek, weights_digest
from dav2.layout import WEIGHTS, WEIGHTS_TAG
from dav2.memory import keep_freed_memory
from dav2.tf32 import allow_tf32

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_REGISTRY = ".dav2/mlflow.db"
"""Database that is the registry of the project in this folder."""
ENDINGS = (".safetensors", ".bin", ".pth", ".onnx")
"""Of files that hold weights."""


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    max_depth: float | None = None,
) -> Any:
    """A model of any family, ready to predict.

    >>> model = dav2.load("artifacts/models/student-vitt")     # what a run of the pipeline left
    >>> model = dav2.load("depth_anything_v2_vits.pth")        # published weights, as a file or a Hugging Face folder
    >>> model = dav2.load("models:/dav2-student-vitt@champion")    # of the registry
    >>> model = dav2.load("vits")                              # random weights, to try things with
    >>> model
    <depth_anything vits: relative disparity, 24.8 M parameters, float32 on cpu>
    >>> model.infer_image(rgb)                                 # uint8 (H, W, 3) in RGB → float32 (H, W)
    >>> model.infer_images([first, second])                    # several; those of equal shape go together
    >>> model.infer_maps([rgb])[0].quantity                    # what the numbers are: disparity, metres, …

    Of ``disparity`` larger is nearer, up to an unknown scale and shift; ``metres`` are distances along the optical
    axis. :func:`dav2.infer` takes files, Pillow images and transparency too, and loads by itself. All methods:
    :class:`dav2.families.family.Model`; a model is also a ``torch.nn.Module``.

    On the CPU the process is told to keep memory that it frees (:func:`dav2.memory.keep_freed_memory`). A model loaded
    in float32 switches TF32 off in this process (:func:`dav2.tf32.allow_tf32`).

    Args:
        source: a model directory of any family, a published ``.pth`` file or Hugging Face folder of Depth Anything,
            ``models:/name@alias`` of the MLflow registry, or a size of Depth Anything, which gives random weights.
        device: where it runs; ``None`` takes the first of CUDA, MPS and CPU that is there.
        dtype: precision of its parameters and of inference: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (as ``None``),
            bfloat16 where the device multiplies in it and float32 elsewhere (:func:`dav2.machine.precision`). Load in
            float32 what is to be trained or saved again.
        max_depth: range in metres, for a file that holds a metric model and does not say so.

    Returns:
        A :class:`dav2.families.family.Model` in evaluation mode, on ``device``.

    Raises:
        WeightsError: there is no model there, or it is damaged, unsafe or of no known size or family.
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


def load_directory(path: Path) -> Any:
    """A model directory of any family as a model on the CPU, in evaluation mode, float32.

    Raises:
        WeightsError: it is damaged, or of a family that is not installed.
    """
    try:
        return families.get(family_of(path)).load(path)
    except families.UnknownFamily as error:
        raise WeightsError(f"{path}: {error}") from None


def family_of(path: Path) -> str:
    """Family that a model directory names; one without a readable name is for the default family to judge."""
    name = peek(path).get("family", families.DEFAULT)
    return name if isinstance(name, str) else families.DEFAULT


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


def _read(source: str, max_depth: float | None) -> Any:
    if source.startswith("models:/"):
        return load_directory(_download(source))
    if not source:
        raise WeightsError("the name of the model is empty")
    path = Path(source)
    try:
        path.exists()
    except OSError as error:
        raise WeightsError(f"no model at {source}: {error.strerror}") from None
    _refuse_stand_ins(path)
    if path.is_file() and path.name == WEIGHTS:
        path = path.parent
    if not (path.is_dir() and "family" in peek(path)):
        for name in families.names():
            found = families.get(name).adopt(str(path), max_depth)
            if found is not None:
                return found
    if path.is_dir():
        return load_directory(path)
    accepted = [form for name in families.names() for form in families.get(name).adopts]
    raise WeightsError(
        f"no model at {source}; expected a model directory, models:/name@alias, {', '.join(accepted[:-1])} or "
        f"{accepted[-1]}"
    )


def _refuse_stand_ins(path: Path) -> None:
    """Raise on what a download leaves in the place of weights.

    Raises:
        WeightsError: the file, or one of the folder, is a pointer of Git LFS or a web page; the message has the cure.
    """
    inside = [each for below in ("*", "*/*") for ending in ENDINGS for each in path.glob(below + ending)]
    for file in [path, *inside]:
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            start = opened.read(64).lstrip().lower()
        if start.startswith(b"version https://git-lfs"):
            raise WeightsError(
                f"{file} is a pointer of Git LFS, not the weights; run 'git lfs pull' where it was cloned"
            )
        if start.startswith((b"<!doctype html", b"<html")):
            raise WeightsError(f"{file} is a web page, not weights; download the file itself, not the page about it")


def pinned(uri: str) -> str:
    """Address of the very version of a registered model that ``uri`` means now, whatever its alias moves to later.

    Raises:
        WeightsError: the registry cannot be read, or has no such model.
    """
    import mlflow

    registry = _registry()
    try:
        return _pinned(mlflow.MlflowClient(registry), uri)[0]
    except Exception as error:
        raise WeightsError(f"{uri} cannot be read from the registry at {registry}: {reason(error)}") from None


def _registry() -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    # The whole path: MLflow remembers databases by their address, and a process may change its folder.
    path = Path(DEFAULT_REGISTRY).resolve()
    if not path.exists():  # MLflow would make one.
        raise WeightsError(
            f"no registry at {path}: go to the project folder in which models were registered, or set "
            "MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{path}"


def _download(uri: str) -> Path:
    """Folder of the model directory inside a registered MLflow model."""
    import mlflow

    registry = _registry()
    try:
        version, digest = _pinned(mlflow.MlflowClient(registry), uri)
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=version, tracking_uri=registry))
    except Exception as error:
        # MLflow's own errors, and those of the database, the network and the disk beneath it.
        raise WeightsError(f"{uri} cannot be read from the registry at {registry}: {reason(error)}") from None
    found = sorted(root.rglob(WEIGHTS))
    if len(found) != 1:
        raise WeightsError(f"{uri} holds {len(found)} model directories; expected one with {WEIGHTS}")
    if digest and (actual := weights_digest(found[0].parent)) != digest:
        raise WeightsError(
            f"{uri}: the weights are damaged (sha256 {actual[:12]}…, registered with {digest[:12]}…); they were read "
            f"from {registry}; 'dav2 lineage verify' names the file, train or register them again"
        )
    return found[0].parent


def _pinned(api: MlflowClient, uri: str) -> tuple[str, str | None]:
    """Address of the very version that ``uri`` means now, and the digest with which its weights were registered.

    An alias may move between two questions. Models that dav2 did not register have no digest.
    """
    name, _, version = uri.removeprefix("models:/").partition("/")
    name, _, alias = name.partition("@")
    if alias:
        version = str(api.get_model_version_by_alias(name, alias).version)
    if version.isdigit():
        return f"models:/{name}/{version}", api.get_model_version(name, version).tags.get(WEIGHTS_TAG)
    tags = api.get_logged_model(name).tags if not version and name.startswith("m-") else {}
    return uri, tags.get(WEIGHTS_TAG)
