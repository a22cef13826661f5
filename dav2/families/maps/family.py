"""Finished maps as a family of the house."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import layout
from dav2.families.directory import WeightsError, read_json
from dav2.families.family import Family
from dav2.families.maps.model import FinishedMaps, find
from dav2.families.teaching import Teaching
from dav2.files import write_whole
from dav2.maps import Quantity
from dav2.names import safe_relative
from dav2.params import OutsideParams


class MapsFamily(Family):
    """Maps that are there already: they label the photographs they are named like."""

    name = "maps"

    def describe_outside(self, file: Path, settings: OutsideParams) -> Any:
        """The folder's maps, listed with their digests; what they hold must be said."""
        assert settings.quantity is not None
        return find(file, Quantity(settings.quantity), settings.output)

    def load(self, path: Path) -> Any:
        """The list of a model directory; the maps themselves stay where they lie."""
        file = path / layout.CONFIG
        document = read_json(file)
        try:
            files = {
                str(key): (str(safe_relative(name, "files")), str(digest))
                for key, (name, digest) in document["files"].items()
            }
            dataset = document["dataset"]
            if not isinstance(dataset, str | None):
                raise ValueError(f"dataset must be a name, not {dataset!r}")
            return FinishedMaps(Path(document["folder"]), Quantity(document["quantity"]), files, dataset)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{file} does not list finished maps: {error!r}") from None

    def save(self, model: object, folder: Path, card: str, extra: dict[str, object]) -> None:
        """Write the list, and no copy of the maps."""
        assert isinstance(model, FinishedMaps)
        described = {"quantity": model.holds.value, "dataset": model.dataset, "folder": str(model.folder)}
        document = {"format": "dav2", "family": self.name, **described, "files": model.files, "extra": extra}
        write_whole(folder / layout.CARD, card)
        write_whole(folder / layout.CONFIG, json.dumps(document, indent=1) + "\n")

    def teaching(self, model: object, precision: str, device: torch.device) -> MapsTeaching:
        assert isinstance(model, FinishedMaps)
        return MapsTeaching(model)

    def predictor(self, model: object) -> NoReturn:
        """Nothing: finished maps are looked up.

        Raises:
            WeightsError: always.
        """
        raise WeightsError("finished maps predict nothing; 'dav2 evaluate --predictions' judges them")


class MapsTeaching(Teaching):
    """Looks up what others would predict; a mirrored or smaller photograph has no map of its own."""

    sees = False

    def __init__(self, maps: FinishedMaps) -> None:
        self.maps, self.quantity, self.device = maps, maps.quantity, torch.device("cpu")

    def shape(self, height: int, width: int, input_size: int) -> tuple[int, int]:
        """The photograph's own shape at ``input_size`` pixels of the short side."""
        scale = input_size / min(height, width)
        return round(height * scale), round(width * scale)

    def prepare(self, rgb: NDArray[np.uint8], input_size: int) -> NDArray[np.float32]:
        height, width = self.shape(rgb.shape[0], rgb.shape[1], input_size)
        small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(small.transpose(2, 0, 1), np.float32) / np.float32(255)

    def predict(self, batch: Tensor, keys: Sequence[str]) -> tuple[Tensor, None]:
        height, width = batch.shape[-2:]
        found = [
            cv2.resize(self.maps.read(key), (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
            for key in keys
        ]
        return torch.from_numpy(np.stack(found)), None

    def lacking(self, keys: Sequence[str]) -> list[str]:
        """Photographs that have no map of their name."""
        return [key for key in keys if self.maps.of(key) is None]
