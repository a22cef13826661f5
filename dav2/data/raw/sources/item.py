"""What readers are made of: a frame that is not yet read, a data set that is there, and the options that all have."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dav2.data.frame import Frame
from dav2.data.images import MAX_PIXELS
from dav2.data.raw.normals import Method


@dataclass(frozen=True, slots=True)
class Item:
    """One frame, not yet read.

    Attributes:
        key: ``source/scene/frame``.
        scene: what must not be torn apart when frames are held out.
        split: ``train``, ``val`` or ``test`` where the data set has an official split; else empty.
        paths: files of the frame, image first, relative to the data set.
        extra: what else the reader needs to read it.
    """

    key: str
    scene: str
    split: str
    paths: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """A data set that is there."""

    name: str
    group: str

    @property
    def licence(self) -> str:
        """Licence of the data set, as its authors state it."""
        ...

    def index(self) -> list[Item]:
        """All frames in a fixed order, without decoding any. Raises SourceError where there are none."""

    def read(self, item: Item) -> Frame:
        """One frame. Raises FrameError where it cannot be used."""

    def notes(self) -> list[str]:
        """What the last ``index`` left out and why, and what the authors promise, as sentences."""


class Options(BaseModel):
    """Options that every reader has; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: str | None = None
    """Cleaning rules to use instead of the packaged ones: a YAML file."""
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    normals_from_depth: Method | None = None
    """Compute normals of frames that have depth and a camera, but none of their own: see
    :mod:`dav2.data.raw.normals`."""
    list: str | None = None
    """Only these frames: a file with one image path a line, first of white-space separated columns (the convention of
    BTS, ZoeDepth, Marigold and Depth Anything V2), in the data set or local."""


def distinct(items: list[Item]) -> list[Item]:
    """Sorted items, told apart where their names differ only in what a key cannot hold (``a b`` and ``a_b``)."""
    result: list[Item] = []
    for key, twins in itertools.groupby(items, key=lambda item: item.key):
        group = list(twins)
        if len(group) > 1:
            group = [replace(i, key=f"{key}-{hashlib.sha256(repr(i.paths).encode()).hexdigest()[:8]}") for i in group]
        result += group
    return result


def without_suffix(name: str) -> str:
    """A path without the last suffix of its file name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.rpartition('.')[0] or file}"
