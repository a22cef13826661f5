"""Any folder (or archive, or bucket) of images, however deep: every image file is a frame, its folder is its scene."""

from __future__ import annotations

from dav2.data.raw.sources.base import Photographs
from dav2.data.raw.sources.item import Options


class ImageFolderOptions(Options):
    """Licence of the pictures."""

    licence: str = "unknown"
    """Recorded with every frame."""


class ImageFolder(Photographs[ImageFolderOptions]):
    """Any folder of images, without depth."""

    rules_name = "image_folder"
    options_type = ImageFolderOptions

    @property
    def licence(self) -> str:
        """As the options state it."""
        return self.options.licence
