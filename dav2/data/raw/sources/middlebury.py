"""Middlebury's motorcycle pair (Scharstein et al., 2014) as scikit-image ships it: a real photograph with dense
depth.

``middlebury.yaml`` points at the files: ``pair: {name, package, left, disparity, left_sha256, disparity_sha256}``,
the disparity being a ``.npz`` with one float array. Depth = 1 / disparity, so its scale is arbitrary.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dav2.data.frame import Frame, FrameError, make_key
from dav2.data.images import decode
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.formats import read_npy
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.packaged import PackagedFile
from dav2.data.raw.tree import MAX_BYTES

LIST = "middlebury.yaml"


class Pair(BaseModel):
    """Left image and its disparity; keys that describe the pair further (licence, source) are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(default="motorcycle", pattern="^[a-z0-9_-]+$")
    package: str
    left: str
    disparity: str
    left_sha256: str | None = None
    disparity_sha256: str | None = None

    def files(self) -> tuple[PackagedFile, PackagedFile]:
        """Image and disparity."""
        return (
            PackagedFile(package=self.package, file=self.left, sha256=self.left_sha256),
            PackagedFile(package=self.package, file=self.disparity, sha256=self.disparity_sha256),
        )


class PairList(BaseModel):
    """The pairs that a list names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pair: Pair


class Middlebury(Reader[Options]):
    """A stereo pair with dense depth from its disparity."""

    group = "benchmark"
    rules_name = "middlebury"
    files_elsewhere = True
    metric = False

    def items(self, names: list[str]) -> list[Item]:
        """The one pair.

        Raises:
            SourceError: ``middlebury.yaml`` is missing or damaged.
        """
        if LIST not in names:
            raise SourceError(f"{self.path}/{LIST} is missing; run 'dvc pull data.dvc'")
        try:
            pair = PairList.model_validate(yaml.safe_load(self.tree.read(LIST))).pair
            left, disparity = pair.files()
        except (yaml.YAMLError, ValidationError) as error:
            raise SourceError(f"{self.path}/{LIST}: {error}") from error
        key = make_key(self.name, pair.name, "left")
        return [Item(key, pair.name, "test", (left.file, disparity.file), pair.model_dump())]

    def load(self, item: Item) -> Frame:
        """Depth as 1 / disparity, of no known scale; a disparity of 0 is unknown."""
        left, stored = Pair.model_validate(item.extra).files()
        image = decode(left.read(), left.file, max_pixels=self.options.max_pixels)
        disparity = _only_array(stored.read(), stored.file)
        with np.errstate(divide="ignore"):
            depth = 1 / disparity
        return self.labelled(item, image, depth)


def _only_array(data: bytes, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            (member,) = archive.infolist()
            if member.file_size > MAX_BYTES:
                raise ValueError(f"{member.file_size} bytes in it")
            return read_npy(archive.read(member), f"{name}/{member.filename}")
    except (zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(f"{name}: must be a .npz with one array: {error}") from error
