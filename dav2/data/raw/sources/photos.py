"""The photographs that installed packages ship, cut into views: real images without a download.

``photos.yaml`` lists them: ``photographs: [{name, package, file, sha256, licence}]``. Each becomes ``views`` frames:
the whole picture, then overlapping cuts at several scales and aspect ratios. The cuts depend on the name and the
number of the view only, so a longer list or more views leave the others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dav2.data.frame import Frame, make_key
from dav2.data.images import decode
from dav2.data.raw.archives import SourceError
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item, Options
from dav2.data.raw.sources.packaged import PackagedFile

LIST = "photos.yaml"
MIN_SIDE = 160
SCALES = (0.35, 0.95)
"""Range of a cut's side relative to the picture's short side."""
MAX_ASPECT = 4 / 3


class Photograph(PackagedFile):
    """One photograph that an installed package ships."""

    name: str = Field(pattern="^[a-z0-9_-]+$")
    licence: str


class PhotographList(BaseModel):
    """The list of photographs and how they are cut."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photographs: list[Photograph] = Field(min_length=1)


class PhotosOptions(Options):
    """Which list is read."""

    views: int = Field(default=1, ge=1)


class PackagedPhotographs(Reader[PhotosOptions]):
    """Photographs of installed packages, cut into views."""

    group = "unlabelled"
    rules_name = "photos"
    files_elsewhere = True
    options_type = PhotosOptions

    def items(self, names: list[str]) -> list[Item]:
        """So many views of each photograph of the list.

        Raises:
            SourceError: ``photos.yaml`` is missing or damaged.
        """
        if LIST not in names:
            raise SourceError(f"{self.path}/{LIST} is missing; run 'dvc pull data.dvc'")
        items = []
        for photograph in self._list().photographs:
            extra = photograph.model_dump()
            for view in range(self.options.views):
                key = make_key(self.name, photograph.name, f"view_{view:04d}")
                items.append(Item(key, photograph.name, "train", (LIST, photograph.file), {**extra, "view": view}))
        return items

    def load(self, item: Item) -> Frame:
        """A view, which depends on the photograph's name and the view's number alone; ``extra`` has the ``licence``."""
        photograph = Photograph.model_validate({name: item.extra[name] for name in Photograph.model_fields})
        decoded = decode(photograph.read(), photograph.file, max_pixels=self.options.max_pixels)
        extra = {"licence": photograph.licence}
        view = int(item.extra["view"])
        if view == 0:
            return Frame(item.key, decoded.rgb, jpeg=decoded.upright_jpeg, extra=extra)
        top, left, height, width = cut(photograph.name, view, *decoded.rgb.shape[:2])
        return Frame(item.key, decoded.rgb[top : top + height, left : left + width].copy(), extra=extra)

    def _list(self) -> PhotographList:
        try:
            tree: object = yaml.safe_load(self.tree.read(LIST))
            return PhotographList.model_validate(tree)
        except yaml.YAMLError as error:
            raise SourceError(f"{self.path}/{LIST}: not valid YAML: {error}") from error
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise SourceError(f"{self.path}/{LIST}: {problems}") from error


def cut(name: str, view: int, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a view; its short side is at least ``MIN_SIDE`` where the picture's is."""
    seed = int.from_bytes(hashlib.sha256(f"{name}/{view}".encode()).digest()[:8], "big")
    random = np.random.default_rng(seed)
    short = min(height, width)
    side = max(min(MIN_SIDE, short), random.uniform(*SCALES) * short)
    stretch = random.uniform(1, MAX_ASPECT)
    tall, wide = (side, side * stretch) if random.random() < 0.7 else (side * stretch, side)
    cut_height, cut_width = min(height, round(tall)), min(width, round(wide))
    top = int(random.integers(height - cut_height + 1))
    left = int(random.integers(width - cut_width + 1))
    return top, left, cut_height, cut_width
