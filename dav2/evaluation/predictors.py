"""Anything that can be scored, behind one small interface: our models by run, model directories, trivial baselines.

Preparing an image is separate from predicting, so that it can happen in reader threads while the network runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.evaluation.baselines import BASELINES, PREFIX
from dav2.families.depth_anything.loading import load
from dav2.families.depth_anything.preprocess import preprocess
from dav2.families.depth_anything.weights import WEIGHTS, weights_digest


class Predictor(Protocol):
    """A model under test.

    Attributes:
        metric: whether predictions are metres instead of relative disparity.
        device: where ``predict`` runs.
        digest: sha256 of the weights; empty for baselines.
        seconds: time spent inside ``predict`` so far.
    """

    metric: bool
    device: torch.device
    digest: str
    seconds: float

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        """uint8 (H, W, 3) → network input (3, h, w) at ``enlarge`` times the native size; called from threads."""
        ...

    def predict(self, batch: Tensor) -> Tensor:
        """(B, 3, h, w) → (B, h, w) float32."""
        ...

    def describe(self) -> dict[str, Any]:
        """Size, parameters, input size … for the score file."""
        ...


class _Timed:
    """Counts the seconds of the forward pass, waiting for the accelerator to finish it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0

    def run(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        batch = batch.to(self.device)
        start = time.perf_counter()
        with torch.inference_mode():
            prediction = function(batch).float()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start
        return prediction


class ModelPredictor(_Timed):
    """A dav2 model from a model directory, or whatever else ``dav2.load`` accepts."""

    def __init__(self, source: Path | str, device: str | None = None) -> None:
        # Scores are taken in float32: published ones are, and a registry gate must not depend on the machine's bf16.
        self.model = load(source, device, torch.float32).eval()
        super().__init__(next(self.model.parameters()).device)
        self.metric = self.model.config.metric
        self.digest = weights_digest(source) if Path(source).exists() else ""
        self.bytes = (Path(source) / WEIGHTS).stat().st_size if (Path(source) / WEIGHTS).exists() else 0

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        size = round(self.model.config.input_size * enlarge / 14) * 14
        return torch.from_numpy(preprocess(rgb, size))

    def predict(self, batch: Tensor) -> Tensor:
        return self.run(self.model, batch)

    def describe(self) -> dict[str, Any]:
        config = self.model.config
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "size": config.size,
            "max_depth": config.max_depth,
            "input_size": config.input_size,
            "parameters": parameters,
            "megabytes": round(self.bytes / 1e6, 2),
            "precision": "fp32",
            "device": str(self.device),
        }

    def latency_ms(self, repeats: int = 10) -> float:
        """Median milliseconds of one square image of the native size, batch 1, after two warm-up passes."""
        side = self.model.config.input_size
        image = torch.zeros(1, 3, side, side, device=self.device)
        times = []
        for _ in range(repeats + 2):
            before = self.seconds
            self.predict(image)
            times.append(self.seconds - before)
        return float(np.median(times[2:]) * 1000)


class BaselinePredictor(_Timed):
    """A trivial baseline at the image's own resolution."""

    metric = False
    digest = ""

    def __init__(self, name: str) -> None:
        super().__init__(torch.device("cpu"))
        self.function = BASELINES[name]

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255

    def predict(self, batch: Tensor) -> Tensor:
        return self.run(self.function, batch)

    def describe(self) -> dict[str, Any]:
        return {"size": "none", "parameters": 0, "megabytes": 0.0, "input_size": None}


def resolve(model: str, root: Path) -> tuple[str, Path | str]:
    """Name and place of a model: a baseline, a run in ``artifacts/models``, a registered version, a folder or file.

    Raises:
        ValueError: none of these; the message lists what there is.
    """
    if model.startswith(PREFIX):
        if model not in BASELINES:
            raise ValueError(f"no baseline '{model}'; there are: {', '.join(BASELINES)}")
        return model, model
    run = root / "artifacts" / "models" / model
    if run.is_dir():
        return model, run
    if model.startswith("models:/"):
        return model.removeprefix("models:/").replace("/", "-"), model
    if (root / model).exists():
        return (root / model).resolve().stem, root / model
    models = root / "artifacts" / "models"
    known = sorted(each.name for each in models.iterdir()) if models.is_dir() else []
    raise ValueError(
        f"no model '{model}': it is neither a run in artifacts/models ({', '.join(known) or 'none there yet'}), "
        f"nor a model directory, a weights file, models:/name@alias, nor one of {', '.join(BASELINES)}"
    )


def open_predictor(model: str, root: Path, device: str | None = None) -> ModelPredictor | BaselinePredictor:
    """The predictor for a model as :func:`resolve` finds it."""
    name, source = resolve(model, root)
    return BaselinePredictor(name) if name in BASELINES else ModelPredictor(source, device)
