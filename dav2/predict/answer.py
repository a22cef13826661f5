"""``dav2.infer``: one image, whatever it comes as, through one model, in one line."""

from __future__ import annotations

import html
import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dav2.data.images import decode
from dav2.families.family import Model
from dav2.families.loading import load
from dav2.files import open_regular, read_bounded
from dav2.maps import Quantity
from dav2.pictures import Palette, beside
from dav2.predict.infer import infer as infer_images
from dav2.predict.layer_writers import layer_picture
from dav2.predict.run import MAX_BYTES
from dav2.predict.shown import jpeg_address
from dav2.predict.writers import Prediction, exif_focal, write

COLOURS = "Spectral_r"
SHOWN = 960
"""Width in pixels of the picture in a notebook."""


class Answer:
    """Depth of one image, or its layers.

    Attributes:
        values: float32 (H, W) at the image's size: relative disparity (larger is nearer), metres, or the other kinds of
            :class:`dav2.maps.Quantity`, of three channels (3, H, W).
        quantity: which of them.
        layers: by quantity, all that was predicted together.
        rgb: the image, uint8 (H, W, 3), upright, sRGB.
        uncertainty: float32 (H, W), of diffusion models that merged several predictions; else ``None``.
        focal: focal length in pixels, where it was given or the file says it.
    """

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self.rgb, self.values = prediction.rgb, prediction.maps.values
        self.quantity: Quantity = prediction.maps.quantity
        self.focal: float | None = prediction.focal
        self.layers = {each.quantity: each.values for each in prediction.maps.every}
        self.uncertainty: NDArray[np.float32] | None = prediction.maps.uncertainty

    def picture(self, colormap: str = COLOURS) -> Image.Image:
        """The map in colours over its own range, as a Pillow image; a layer as people look at it."""
        return Image.fromarray(self._shown(colormap))

    def pictures(self) -> dict[Quantity, NDArray[np.uint8]]:
        """Every layer as people look at it, uint8 (H, W, 3); of depth there is none, whose colours need a range."""
        if self.quantity.is_depth:
            return {}
        return {each.quantity: layer_picture(each) for each in self._prediction.maps.every}

    def _shown(self, colormap: str) -> NDArray[np.uint8]:
        return Palette(colormap)(self.values) if self.quantity.is_depth else layer_picture(self._prediction.maps)

    def save(self, stem: str | Path, *kinds: str, colormap: str = COLOURS) -> list[Path]:
        """Write files named ``stem`` and an ending; returns their paths.

        Args:
            kinds: as of ``dav2 predict --save``: ``png16``, ``npy``, ``color``, ``side-by-side``, ``ply``,
                ``uncertainty``; ``png16`` if none is named.
        """
        return write(self._prediction, list(kinds) or ["png16"], Palette(colormap), Path(stem))

    def __repr__(self) -> str:
        height, width = self.values.shape[-2:]
        least, most = float(self.values.min()), float(self.values.max())
        what = "depth" if self.quantity.is_depth else ", ".join(self.layers)
        return f"<{what} of {width} × {height} pixels: {self.quantity.unit} from {least:.4g} to {most:.4g}>"

    def _repr_html_(self) -> str:
        picture = jpeg_address(beside(self.rgb, self._shown(COLOURS)), SHOWN)
        words = html.escape(repr(self)[1:-1])
        return f'<figure><img alt="" src="{picture}"><figcaption>{words}</figcaption></figure>'


def infer(
    image: str | Path | Image.Image | NDArray[np.uint8],
    model: str | Path | Any,
    input_size: int | None = None,
    *,
    focal: float | None = None,
) -> Answer:
    """Depth of one image.

    >>> depth = dav2.infer("photo.jpg", "artifacts/models/student-vitt")
    >>> depth                                  # in a notebook: the photograph beside its depth
    <depth of 600 × 400 pixels: relative disparity from 0.12 to 3.4>
    >>> depth.values                           # float32 (H, W)
    >>> depth.save("photo", "png16", "color")  # photo_depth.png and photo_color.png

    Args:
        image: a file, a Pillow image, or an array uint8 (H, W, 3) in RGB; also (H, W) grey and (H, W, 4) with
            transparency, which is laid on white.
        model: what :func:`dav2.load` takes, or gives. A model named by its place is kept for the next call.
        input_size: as ``infer_image`` of the model; ``None`` is its native size.
        focal: focal length in pixels, for point clouds; ``None`` takes what the file says.

    Raises:
        FrameError: the file is no image, damaged, or too large.
        ValueError: the array is of another shape or type, or the model predicts nothing finite.
        WeightsError: there is no such model.
    """
    rgb, found = _rgb(image)
    loaded: Model = _loaded(str(model)) if isinstance(model, str | Path) else model
    maps = infer_images(loaded, [rgb], input_size)[0]
    if isinstance(maps, Exception):
        raise maps
    return Answer(Prediction(rgb, maps, focal or found))


@lru_cache(maxsize=2)
def _loaded(source: str) -> Any:
    return load(source)


def _rgb(image: str | Path | Image.Image | NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float | None]:
    """uint8 (H, W, 3), and the focal length in pixels where the file tells it."""
    if isinstance(image, str | Path):
        with open_regular(Path(image)) as file:
            data = read_bounded(file, MAX_BYTES, str(image))
        rgb = decode(data, str(image)).rgb
        return rgb, exif_focal(data, rgb.shape, str(image))[0]
    if isinstance(image, Image.Image):
        # As a file, it goes the same way: profiles, palettes, transparency.
        file = io.BytesIO()
        image.save(file, "PNG", icc_profile=image.info.get("icc_profile"))
        return decode(file.getvalue(), "the image").rgb, None
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(
            f"an array of {array.dtype} {array.shape}: give uint8 (height, width, 3) in RGB, or (height, width), or "
            "(height, width, 4)"
        )
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array), None
    return _rgb(Image.fromarray(array))
