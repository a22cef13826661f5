"""Named protocols: everything that decides what a depth score means, declared in one place.

The same model's AbsRel moves by a factor of two with the protocol, so every result carries the protocol's name and the
hash of its content; two numbers compare only where both are equal. Three conventions for relative depth are declared:

* ``da-v2``: least squares in disparity against 1/depth, the aligned disparity inverted and clipped to the range.
  Independent reproductions of the published table match with raw NYU depth in the Eigen crop, KITTI's 652 annotated
  frames in the Garg crop, and DIODE *indoor* only. The published ETH3D and Sintel numbers are not reproduced by any
  known protocol; those two declarations follow MiDaS (arXiv 1907.01341).
* ``marigold`` (arXiv 2312.02145): least squares in the space the model predicts in, over the set's valid range.
* ``moge`` (arXiv 2410.19115): least squares in disparity; the aligned disparity is at least 1/(largest truth).

``metric-*`` measure metres as predicted. ``da-v2-edges`` is for sets whose depth is exact at object borders: the whole
image under the first convention up to 80 m, with boundary scores.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Alignment = Literal["disparity", "native", "none"]


@dataclass(frozen=True, slots=True)
class Crop:
    """Scored region as fractions of height and width; bounds are rounded down to pixels."""

    top: float
    bottom: float
    left: float
    right: float

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width), true inside the crop."""

        def bound(fraction: float, length: int) -> int:
            return math.floor(fraction * length + 1e-6)

        inside = np.zeros((height, width), dtype=bool)
        rows = slice(bound(self.top, height), bound(self.bottom, height))
        inside[rows, bound(self.left, width) : bound(self.right, width)] = True
        return inside


NYU_EIGEN = Crop(45 / 480, 471 / 480, 41 / 640, 601 / 640)
KITTI_GARG = Crop(0.40810811, 0.99189189, 0.03594771, 0.96405229)
KITTI_EIGEN = Crop(0.3324324, 0.91351351, 0.0359477, 0.96405229)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How predictions on one benchmark become numbers.

    Attributes:
        name: unique name.
        alignment: ``disparity`` fits scale and shift to 1/depth; ``native`` fits in the space the model predicts in
            (disparity models as above, depth models to depth); ``none`` takes metres as they are.
        min_depth: metres; pixels of the truth at or below it do not count.
        max_depth: metres; pixels of the truth beyond it do not count (sky never does). Predictions are clipped to both.
        crop: scored region, ``None`` for all of the image.
        input_crop: (rows, columns) cut out before prediction, bottom and centre as in KITTI's depth benchmark; an image
            that is smaller stays whole.
        floor: least aligned disparity: 1/``max_depth``, 1/(largest truth of the image), or a number.
        image_side: longest side in pixels to which images are reduced before prediction, ``None`` for as they are.
        fit_side: scale and shift are fitted on maps subsampled to this longest side, ``None`` for all pixels.
        keys: regular expression that a frame's key must match.
        boundary: which boundary scores are taken as well (:mod:`dav2.scores.boundary`): ``f1``, ``dbe``.
        frames: number of frames of the full benchmark, ``None`` where it is not fixed.
        min_pixels: frames with fewer valid pixels are counted as ``too few valid pixels``.
    """

    name: str
    alignment: Alignment
    min_depth: float = 1e-3
    max_depth: float = math.inf
    crop: Crop | None = None
    input_crop: tuple[int, int] | None = None
    floor: Literal["max_depth", "max_target"] | float = "max_depth"
    image_side: int | None = None
    fit_side: int | None = None
    keys: str = ""
    boundary: tuple[Literal["f1", "dbe"], ...] = ()
    frames: int | None = None
    min_pixels: int = 10

    def digest(self) -> str:
        """First 16 hexadecimal digits of the sha256 over every field: equal digests mean equal rules."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One sentence for the report."""
        fit = {
            "disparity": "scale and shift fitted in disparity by least squares",
            "native": "scale and shift fitted in the model's own space by least squares",
            "none": "no alignment: metres as predicted",
        }[self.alignment]
        far = "no upper limit" if math.isinf(self.max_depth) else f"up to {self.max_depth:g} m"
        region = "part of the image" if self.crop else "whole image"
        return f"{fit}; truth from {self.min_depth:g} m, {far}; {region} scored"


def _da_v2() -> list[Protocol]:
    return [
        Protocol("da-v2-nyu", "disparity", max_depth=10.0, crop=NYU_EIGEN, frames=654),
        Protocol("da-v2-kitti", "disparity", max_depth=80.0, crop=KITTI_GARG, frames=652),
        Protocol("da-v2-eth3d", "disparity", max_depth=72.0, fit_side=1024, frames=454),
        Protocol("da-v2-diode", "disparity", max_depth=350.0, keys=r"/indoors", frames=325),
        Protocol("da-v2-sintel", "disparity", max_depth=72.0, boundary=("f1",), frames=1064),
        Protocol("da-v2-scannet", "disparity", max_depth=10.0, frames=800),
        Protocol("da-v2-ibims", "disparity", max_depth=50.0, boundary=("f1", "dbe"), frames=100),
        Protocol("da-v2-middlebury", "disparity", min_depth=0.0, boundary=("f1",)),
        Protocol("da-v2-edges", "disparity", max_depth=80.0, boundary=("f1", "dbe")),
    ]


def _marigold() -> list[Protocol]:
    near, floor = 1e-5, 1e-3
    return [
        Protocol("marigold-nyu", "native", max_depth=10.0, crop=NYU_EIGEN, floor=floor, frames=654),
        Protocol(
            "marigold-kitti",
            "native",
            min_depth=near,
            max_depth=80.0,
            crop=KITTI_EIGEN,
            input_crop=(352, 1216),
            floor=floor,
            frames=652,
        ),
        Protocol("marigold-eth3d", "native", min_depth=near, floor=floor, image_side=756, fit_side=1024, frames=454),
        Protocol("marigold-scannet", "native", max_depth=10.0, floor=floor, frames=800),
        Protocol("marigold-diode", "native", min_depth=0.6, max_depth=350.0, floor=floor, image_side=640, frames=771),
    ]


def _moge() -> list[Protocol]:
    sets = {"nyu": 654, "kitti": 652, "eth3d": None, "diode": 771, "sintel": 1064, "ibims": 100}
    return [
        Protocol(f"moge-{name}", "disparity", min_depth=0.0, floor="max_target", frames=frames)
        for name, frames in sets.items()
    ]


def _metric() -> list[Protocol]:
    kitti = {"max_depth": 80.0, "input_crop": (352, 1216), "frames": 652}
    return [
        Protocol("metric-nyu", "none", max_depth=10.0, crop=NYU_EIGEN, frames=654),
        Protocol("metric-kitti", "none", crop=KITTI_GARG, **kitti),  # type: ignore[arg-type]
        Protocol("metric-kitti-eigen", "none", crop=KITTI_EIGEN, **kitti),  # type: ignore[arg-type]
    ]


PROTOCOLS: dict[str, Protocol] = {p.name: p for p in [*_da_v2(), *_marigold(), *_moge(), *_metric()]}


def get_protocol(name: str) -> Protocol:
    """Protocol by name.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise ValueError(f"no protocol '{name}'; there are: {', '.join(PROTOCOLS)}") from None
