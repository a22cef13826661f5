"""Anything that can be scored, behind one small interface: our models by run, model directories, trivial baselines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import families, layout
from dav2.evaluation.baselines import BASELINES, LAYER_BASELINES, PREFIX
from dav2.families.directory import weights_digest
from dav2.families.family import Predictor
from dav2.families.loading import load
from dav2.layout import WEIGHTS
from dav2.maps import Quantity

_EVERY = (*BASELINES, *LAYER_BASELINES)


class Judged:
    """A model or baseline under test, with the time that its forward passes take.

    Attributes:
        predictor: what predicts.
        digest: sha256 of the weights; empty for baselines.
        megabytes: of the weights file.
        seconds: time spent predicting so far.
    """

    def __init__(self, predictor: Predictor, digest: str = "", megabytes: float = 0.0) -> None:
        self.predictor, self.digest, self.megabytes = predictor, digest, megabytes
        self.quantity, self.layers, self.device = predictor.quantity, predictor.layers, predictor.device
        self.prepare, self.resized = predictor.prepare, predictor.resized
        self.seconds = 0.0

    @property
    def is_baseline(self) -> bool:
        """Whether it looks at nothing in the picture."""
        return isinstance(self.predictor, BaselinePredictor)

    def predict(self, batch: Tensor) -> Tensor:
        """(B, 3, h, w) → values of the quantity (B, …, h, w); waits for the accelerator to finish."""
        batch = batch.to(self.device)
        start = time.perf_counter()
        with torch.inference_mode():
            prediction = self.predictor.predict(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - start
        return prediction

    def describe(self) -> dict[str, Any]:
        """Size, parameters, input size … for the score file."""
        described = {**self.predictor.describe(), "quantity": self.quantity.value}
        return {**described, "megabytes": round(self.megabytes, 2), "precision": "fp32", "device": str(self.device)}

    def latency_ms(self, repeats: int = 10) -> float:
        """Median milliseconds of one square image of the native size, batch 1, after two warm-up passes."""
        image = self.predictor.example()
        times = []
        for _ in range(repeats + 2):
            before = self.seconds
            self.predict(image)
            times.append(self.seconds - before)
        return float(np.median(times[2:]) * 1000)


class BaselinePredictor(Predictor):
    """A trivial baseline at the image's own resolution."""

    device = torch.device("cpu")

    def __init__(self, name: str) -> None:
        depth = (Quantity.DISPARITY,)
        self._layers, self.function = LAYER_BASELINES[name] if name in LAYER_BASELINES else (depth, BASELINES[name])
        self.quantity = self._layers[0]

    @property
    def layers(self) -> tuple[Quantity, ...]:
        return self._layers

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255

    def predict(self, batch: Tensor) -> Tensor:
        return self.function(batch).float()

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return prediction

    def example(self) -> Tensor:
        return torch.zeros(1, 3, 64, 64)

    def describe(self) -> dict[str, Any]:
        return {"size": "none", "parameters": 0, "input_size": None}


def judged_model(source: Path | str, device: str | None = None) -> Judged:
    """A model from a model directory of any family, or whatever else ``dav2.load`` accepts.

    Scores are taken in float32: published ones are, and a registry gate must not depend on the machine's bf16.
    """
    model = load(source, device, torch.float32)
    weights = Path(source) / WEIGHTS
    megabytes = weights.stat().st_size / 1e6 if weights.is_file() else 0.0
    digest = weights_digest(source) if Path(source).exists() else ""
    return Judged(families.of_model(model).predictor(model), digest, megabytes)


def resolve(model: str, root: Path) -> tuple[str, Path | str]:
    """Name and place of a model: a baseline, a run in ``artifacts/models``, a registered version, a folder or file.

    Raises:
        ValueError: none of these; the message lists what there is.
    """
    if model.startswith(PREFIX):
        if model not in _EVERY:
            raise ValueError(f"no baseline '{model}'; there are: {', '.join(_EVERY)}")
        return model, model
    run = layout.model(root, model)
    if run.is_dir():
        return model, run
    if model.startswith("models:/"):
        return model.removeprefix("models:/").replace("/", "-"), model
    if (root / model).exists():
        place = (root / model).resolve()
        return place.name if place.is_dir() else place.stem, root / model
    models = root / layout.MODELS
    known = sorted(each.name for each in models.iterdir()) if models.is_dir() else []
    raise ValueError(
        f"no model '{model}': it is neither a run in {layout.MODELS} ({', '.join(known) or 'none there yet'}), "
        f"nor a model directory, a weights file, models:/name@alias, nor one of {', '.join(_EVERY)}"
    )


def open_predictor(model: str, root: Path, device: str | None = None) -> Judged:
    """What :func:`resolve` finds, ready to be judged."""
    name, source = resolve(model, root)
    return Judged(BaselinePredictor(name)) if name in _EVERY else judged_model(source, device)
