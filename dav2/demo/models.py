"""The models that a page offers, each loaded when it is first asked for, and what each makes of a photograph."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dav2 import layout
from dav2.failures import named
from dav2.families.family import Model
from dav2.families.loading import load
from dav2.predict.answer import Answer, infer

KEPT = 4
"""Models that stay in memory."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One model on one photograph.

    Attributes:
        name: of the model.
        answer: its depth, or ``None`` where it could not take the photograph.
        problem: why not; empty otherwise.
        seconds: of the prediction alone, the model being loaded.
        first: whether it was the model's first one, which is slower than those after it.
        size: parameters and bytes, in words.
    """

    name: str
    answer: Answer | None
    problem: str
    seconds: float
    first: bool
    size: str


class Models:
    """Model directories by name."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders
        self._used: set[str] = set()
        self._loaded = lru_cache(maxsize=KEPT)(self._load)

    def _load(self, name: str) -> Model:
        self._used.discard(name)
        found: Model = load(self.folders[name])
        return found

    def predict(self, name: str, photograph: Path) -> Shown:
        """Depth of a photograph by the model ``name``; what goes wrong with one model is said in its place."""
        try:
            model = self._loaded(name)
            first, began = name not in self._used, time.perf_counter()
            answer = infer(photograph, model)
        except Exception as error:
            # Models of any program may stand here, and one must not take the others' pictures away.
            return Shown(name, None, named(error), 0.0, False, "")
        self._used.add(name)
        return Shown(name, answer, "", time.perf_counter() - began, first, self._size(name, model))

    def _size(self, name: str, model: Model) -> str:
        megabytes = f"{(self.folders[name] / layout.WEIGHTS).stat().st_size / 1e6:.0f} MB"
        count = sum(each.numel() for each in model.parameters()) if hasattr(model, "parameters") else 0
        return f"{count / 1e6:.1f} M parameters, {megabytes}" if count else megabytes


def find_models(given: list[Path]) -> dict[str, Path]:
    """Model directories by name: those given, or all of the project.

    Raises:
        ValueError: a path is no model directory, two have one name, or there is none.
    """
    candidates = given or sorted(Path(layout.MODELS).glob("*"))
    wrong = [path for path in given if not (path / layout.WEIGHTS).is_file()]
    if wrong:
        raise ValueError(f"{wrong[0]} is not a model directory: it has no {layout.WEIGHTS}")
    found: dict[str, Path] = {}
    for path in (each for each in candidates if (each / layout.WEIGHTS).is_file()):
        name = path.resolve().name
        if name in found:
            raise ValueError(f"{found[name]} and {path} are both called '{name}'; give one of them another name")
        found[name] = path
    if not found:
        raise ValueError(f"there are no models in {layout.MODELS}; run 'dvc repro', or name model directories")
    return found
