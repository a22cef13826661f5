"""A plain tree of pictures: ``<folder>/<name>.jpg``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.layouts import files


def write_image(root: Path, folder: str, name: str, rgb: NDArray[np.uint8]) -> None:
    """Write one picture as JPEG."""
    files.write_jpeg(root / folder / f"{name}.jpg", rgb)
