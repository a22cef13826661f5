"""Pictures as pages hold them: small, and in the page itself."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dav2.data.images import encode_jpeg

QUALITY = 88


def jpeg_address(rgb: NDArray[np.uint8], side: int | None = None, quality: int = QUALITY) -> str:
    """An image uint8 (H, W, 3) as the data address of a JPEG.

    Args:
        side: longest side in pixels that it is reduced to; ``None`` leaves its size.
        quality: of the JPEG, 1 to 95.
    """
    if side is not None and max(rgb.shape[:2]) > side:
        picture = Image.fromarray(rgb)
        picture.thumbnail((side, side))
        rgb = np.asarray(picture)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(rgb, quality)).decode()
