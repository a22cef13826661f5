"""A family of one's own, with batches and a quantity of its own: trained, judged, registered and loaded as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dav2
from dav2 import families, layout
from dav2.data.store.manifest import read_manifest
from dav2.data.store.shards import read_frame
from dav2.evaluation.evaluate import evaluate_model
from dav2.families.family import Family, Predictor
from dav2.maps import Maps, Quantity
from dav2.params import load
from dav2.tracking import lineage, registry, runs
from dav2.training.compiling import How
from dav2.training.recipes import Recipe
from dav2.training.task import Task
from tests.training import processes
from tests.training.processes import read_lines, train_rank
from tests.training.world import COMMON, make_project


class Grey(nn.Module):
    """Relative depth as a linear function of a pixel's colour."""

    family, quantity = "grey", Quantity.DEPTH

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def infer_maps(self, images: Any, input_size: int | None = None) -> list[Maps[Any]]:
        with torch.inference_mode():
            kind = self.linear.weight.dtype
            values = [self.linear(torch.from_numpy(rgb).to(kind) / 255)[..., 0].float().numpy() for rgb in images]
        return [Maps(self.quantity, value) for value in values]

    def infer_image(self, rgb: Any, input_size: int | None = None) -> Any:
        return self.infer_maps([rgb])[0].values


class GreyTask(Task):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.mixed = Grey(), False

    def forward(self, pixels: Tensor, metres: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        error = (self.model.linear(pixels)[..., 0] - metres).square().mean(dim=1)
        return {"loss": error.mean(), "per_image": error.detach()}

    def part_of(self, name: str, parameter: nn.Parameter) -> str:
        return "decoder"

    def infer(self, images: Any, input_size: int) -> list[Maps[Any]]:
        return self.model.infer_maps(images)

    def preview(self, batch: Mapping[str, Tensor], rows: int) -> list[list[Any]]:
        return [[np.zeros((4, 4, 3), np.uint8)]]

    def rebuilt(self, state: dict[str, Tensor]) -> Grey:
        model = Grey()
        model.load_state_dict(state)
        return model

    def compile_network(self, how: How, dynamic: bool) -> None: ...

    def save_memory(self) -> None: ...


class Pixels:
    """Batches of pixels and their metres, without any picture."""

    repeated = 0

    def __init__(self, shards: str, split: str, batch: int) -> None:
        table = read_manifest(shards)
        rows = table[table["split"] == split].to_dict("records")
        self.frames, self.size = [read_frame(shards, row) for row in rows], batch

    def __len__(self) -> int:
        return 1000

    def batch(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        chosen = [self.frames[n] for n in rng.integers(0, len(self.frames), self.size)]
        places = rng.integers(0, 60, (2, 32)) + 12  # below what may be sky
        pixels = np.stack([frame.rgb[places[0], places[1]] for frame in chosen]).astype(np.float32) / 255
        metres = np.stack([frame.depth[places[0], places[1]] for frame in chosen])
        keys = [frame.key for frame in chosen]
        return {"pixels": torch.from_numpy(pixels), "metres": torch.from_numpy(metres), "keys": keys}

    def iterate(self, start: int = 0) -> Generator[dict[str, Any]]:
        while True:
            yield self.batch(start)
            start += 1


class GreyPredictor(Predictor):
    quantity, device = Quantity.DEPTH, torch.device("cpu")

    def __init__(self, model: Grey) -> None:
        self.model = model

    def prepare(self, rgb: Any, enlarge: float = 1.0) -> Tensor:
        return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255

    def predict(self, batch: Tensor) -> Tensor:
        return self.model.linear(batch.permute(0, 2, 3, 1))[..., 0]

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return prediction

    def example(self) -> Tensor:
        return torch.zeros(1, 3, 28, 28)

    def describe(self) -> dict[str, Any]:
        return {"size": "one", "input_size": None, "parameters": 4}


class GreyFamily(Family):
    name = "grey"

    def save(self, model: Any, folder: Path, card: str, extra: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / layout.CARD).write_text(card)
        (folder / layout.CONFIG).write_text(json.dumps({"format": "dav2", "family": "grey", "extra": extra}))
        save_file(dict(model.state_dict()), folder / layout.WEIGHTS)

    def load(self, path: Path) -> Any:
        from safetensors.torch import load_file

        return GreyTask().rebuilt(load_file(path / layout.WEIGHTS)).eval()

    def predictor(self, model: Any) -> GreyPredictor:
        return GreyPredictor(model)

    def task(self, recipe: Recipe) -> GreyTask:
        torch.manual_seed(recipe.seed)
        return GreyTask()

    def data(self, recipe: Recipe, rank: int, world: int, workers: int) -> Pixels:
        return Pixels(recipe.parts[0].shards, "train", recipe.settings.batch)

    def validation_data(self, recipe: Recipe, batch: int, rank: int, world: int) -> Pixels:
        return Pixels(recipe.parts[0].shards, "val", batch)


def train_grey(params: Path, run: str) -> None:
    families.add(GreyFamily())
    train_rank(params, run)


def test_a_family_of_ones_own_goes_through_the_whole_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"optimizer": "adam", "decoder_lr": 0.2, "schedule": "constant"}
    teacher = {**COMMON, "family": "grey", "size": "one", "sources": ["rooms"], "steps": 200, "optim": rates}
    path = make_project(tmp_path, teacher={**teacher, "checkpoint": {"every_steps": 200, "evaluate_every": 100}})
    processes.run_to_end(path, "teacher", 1, train_grey)
    losses = [line["loss"] for line in read_lines(layout.training(tmp_path, "teacher") / "metrics.jsonl")]
    assert losses[-1] < 0.5 * losses[0]

    families.add(GreyFamily())
    params = load(path)
    scores = evaluate_model("teacher", params, tmp_path, benchmarks=["da2k"])
    assert scores.quantity == "depth" and scores.da2k is not None
    assert (scores.da2k.accuracy or 0) > 0.9, "what is brighter is nearer there"

    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    runs.log_training("teacher", Path(), params, lineage.collect("teacher", Path(), params))
    version = registry.register("teacher", Path(), params, scores)
    assert version.name == "dav2-teacher"
    loaded = dav2.load(f"models:/{version.name}@candidate")
    assert isinstance(loaded, Grey)
    rgb = np.full((8, 9, 3), 200, np.uint8)
    assert loaded.infer_image(rgb).shape == (8, 9)
    assert (dav2.load(layout.model(Path(), "teacher")).infer_image(rgb) == loaded.infer_image(rgb)).all()


def test_a_family_that_is_not_installed_is_named(tmp_path: Path) -> None:
    (tmp_path / layout.CONFIG).write_text('{"format": "dav2", "family": "nobody"}')
    with pytest.raises(ValueError, match="no model family 'nobody'; there are: depth_anything"):
        dav2.load(tmp_path)
