"""ONNX files as a family of the house: they label and are judged; nothing trains them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import layout
from dav2.families.directory import WeightsError, number, read_json
from dav2.families.family import Family, Predictor
from dav2.families.onnx.model import OnnxConfig, OnnxModel, resized
from dav2.families.teaching import Teaching
from dav2.files import write_whole, written_whole
from dav2.maps import Quantity
from dav2.params import OutsideParams

NETWORK = "network.onnx"


class OnnxFamily(Family):
    """A network of somebody else's, as a file."""

    name = "onnx"

    def describe_outside(self, file: Path, settings: OutsideParams) -> OnnxModel:
        """The file, used as section ``outside`` says, after it has shown once that it gives a map."""
        assert settings.quantity is not None
        config = OnnxConfig(
            quantity=Quantity(settings.quantity),
            size=settings.size or 0,
            multiple=settings.multiple,
            mean=settings.mean,
            std=settings.std,
            output=settings.output or "",
        )
        model = OnnxModel(file, config)
        if settings.size is None and model.free:
            raise WeightsError(f"{file} takes any size; say with 'size' at which short side it is used")
        height, width = model.network_shape(3, 4)
        if settings.size is not None and not model.free and settings.size != min(height, width):
            raise WeightsError(f"{file} is made for {height} × {width} alone; leave 'size' ({settings.size}) out")
        # What cannot be run, or gives no map, is told now and not at the first photograph.
        model.infer_image(np.zeros((height, width, 3), np.uint8))
        return model

    def load(self, path: Path) -> OnnxModel:
        file = path / layout.CONFIG
        document = read_json(file)
        try:
            config = OnnxConfig(
                quantity=Quantity(document["quantity"]),
                size=int(number(document["size"], "size")),
                multiple=int(number(document["multiple"], "multiple")),
                mean=tuple(number(each, "mean") for each in document["mean"]),
                std=tuple(number(each, "std") for each in document["std"]),
                output=str(document["output"]),
            )
            if config.multiple < 1 or len(config.mean) != 3 or len(config.std) != 3 or 0 in config.std:
                raise ValueError("multiple must be 1 or more, mean and std three numbers each, none of std 0")
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{file} does not say how the network is used: {error!r}") from None
        return OnnxModel(path / NETWORK, config)

    def save(self, model: object, folder: Path, card: str, extra: dict[str, object]) -> None:
        """Copy the file, and write beside it how it is used."""
        assert isinstance(model, OnnxModel)
        document = {"format": "dav2", "family": self.name, **model.config.as_json(), "extra": extra}
        write_whole(folder / layout.CARD, card)
        write_whole(folder / layout.CONFIG, json.dumps(document, indent=2) + "\n")
        with written_whole(folder / NETWORK) as temporary:
            shutil.copyfile(model.file, temporary)

    def predictor(self, model: object) -> OnnxPredictor:
        assert isinstance(model, OnnxModel)
        return OnnxPredictor(model)

    def teaching(self, model: object, precision: str, device: torch.device) -> OnnxTeaching:
        assert isinstance(model, OnnxModel)
        return OnnxTeaching(model)


class OnnxPredictor(Predictor):
    """One file under test."""

    device = torch.device("cpu")

    def __init__(self, model: OnnxModel) -> None:
        self.model, self.quantity = model, model.quantity

    def prepare(self, rgb: NDArray[np.uint8], enlarge: float = 1.0) -> Tensor:
        return torch.from_numpy(self.model.prepare(rgb, round(self.model.config.size * enlarge)))

    def predict(self, batch: Tensor) -> Tensor:
        return self.model(batch)

    def resized(self, prediction: Tensor, shape: tuple[int, int]) -> Tensor:
        return resized(prediction, shape)

    def example(self) -> Tensor:
        side = max(self.model.config.size, 1)
        return torch.zeros(1, 3, *self.model.network_shape(side, side))

    def describe(self) -> dict[str, object]:
        return {"size": "onnx", "input_size": self.model.config.size, "parameters": None}


class OnnxTeaching(Teaching):
    """One file that labels, at the input size that the labels ask for where it takes any."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__(model, OnnxPredictor(model))
        self.multiple = model.config.multiple
        self._network = model

    def prepare(self, rgb: NDArray[np.uint8], input_size: int) -> NDArray[np.float32]:
        return self._network.prepare(rgb, input_size)
