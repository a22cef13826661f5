"""A folder of maps that some program made of one's photographs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.data.frame import FrameError
from dav2.data.raw.members import is_noise, printable
from dav2.data.raw.sources.maps import SUFFIXES, image_names, read_map
from dav2.failures import reason
from dav2.families.directory import WeightsError
from dav2.files import open_regular, read_bounded, sha256_file
from dav2.maps import FLOOR, Quantity
from dav2.walk import Found, walk

MAX_BYTES = 512 * 2**20
"""Bytes of one map."""


@dataclass(frozen=True)
class FinishedMaps:
    """Maps by the photograph they are of.

    Attributes:
        folder: where they lie; they are not copied.
        holds: what their numbers are.
        files: key without the source's name → (path relative to ``folder``, sha256).
        dataset: array of files that hold several.
    """

    folder: Path
    holds: Quantity
    files: dict[str, tuple[str, str]]
    dataset: str | None = None

    family = "maps"

    @property
    def quantity(self) -> Quantity:
        """What labels made of them hold: disparity in the place of metres."""
        return Quantity.DISPARITY if self.holds is Quantity.METRES else self.holds

    def of(self, key: str) -> str | None:
        """Name, in ``files``, of the map of a photograph ``source/scene/frame``; ``None`` where there is none."""
        rest = key.partition("/")[2]
        return next((name for name in (key, rest) if name in self.files), None)

    def read(self, key: str) -> NDArray[np.float32]:
        """The map of a photograph, (H, W), in the labels' quantity.

        Raises:
            FrameError: there is none, it has changed since it was taken in, cannot be read, or has gaps.
        """
        name = self.of(key)
        if name is None:
            wanted = f"{key.partition('/')[2]}{SUFFIXES[0]}"
            raise FrameError(f"{key}: no map of it in {self.folder}; expected {wanted} or another kind of that name")
        relative, digest = self.files[name]
        path = self.folder / relative
        try:
            with open_regular(path) as file:
                data = read_bounded(file, MAX_BYTES, str(path))
        except (OSError, ValueError) as error:
            raise FrameError(f"{path}: {reason(error)}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise FrameError(f"{path} is not the map that was taken in; 'dvc repro' takes in those of now")
        values = read_map(data, str(path), dataset=self.dataset).astype(np.float32)
        if self.holds is Quantity.METRES:
            # What is infinitely far has no disparity; what is not known, and what lies behind the camera, none to tell.
            values = np.where(values > 0, values, np.nan)
            values = np.where(np.isposinf(values), 0, 1 / np.maximum(values, FLOOR)).astype(np.float32)
        if not np.isfinite(values).all():
            gaps = int((~np.isfinite(values)).sum())
            raise FrameError(f"{path}: {gaps} pixels without a number that a label could take; it needs all of them")
        return values


def _problem(path: Path, found: Found) -> str:
    """Why a file cannot be a map, before it is read; empty where it can."""
    if found.problem or printable(found.name) != found.name:
        return found.problem or "its name is not UTF-8"
    size = path.stat().st_size
    return f"it has {size} bytes, more than the {MAX_BYTES} that a map may have" if size > MAX_BYTES else ""


def find(folder: Path, holds: Quantity, dataset: str | None) -> FinishedMaps:
    """All maps below a folder, with their digests.

    Raises:
        WeightsError: there is no such folder or no map in it, two files are the map of one photograph, or what is named
            like a map is no plain file, too large, or of a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder of maps")
    files: dict[str, tuple[str, str]] = {}
    for found in walk(folder):
        path, relative = folder / found.name, printable(found.name)
        if is_noise(relative) or found.passed_over or path.suffix.lower() not in SUFFIXES:
            continue
        if problem := _problem(path, found):
            raise WeightsError(f"{folder / relative} cannot be the map of a photograph: {problem}; mend or remove it")
        entry = (relative, sha256_file(path))
        for parts in image_names(relative):
            key = "/".join(parts)
            if key in files:
                raise WeightsError(f"{path} and {folder / files[key][0]} would both be the map of '{key}'; remove one")
            files[key] = entry
    if not files:
        raise WeightsError(f"{folder} holds no maps ({', '.join(SUFFIXES)})")
    return FinishedMaps(folder, holds, files, dataset)
