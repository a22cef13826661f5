"""Named protocols: everything that decides what a depth score means, declared in one place.

The same model's AbsRel moves by a factor of two with the protocol, so every result carries the protocol's name and the
hash of its content; two numbers compare only where both are equal. Three conventions for relative depth are declared:

* ``da-v2``: least squares in disparity against 1/depth, the aligned disparity inverted and clipped to the range.
  Independent reproductions of the published table match with raw NYU depth in the Eigen crop, KITTI's 652 annotated
  frames in the Garg crop, and DIODE *indoor* only. The published ETH3D and Sintel numbers are not reproduced by any
  known protocol; those two declarations follow MiDaS (arXiv 1907.01341).
* ``marigold`` (arXiv 2312.02145): least squares in the space the model predicts in, over the set's valid range.
* ``moge`` (arXiv 2410.19115): least squares in disparity; the aligned disparity is at least 1/(largest truth).

The same region and range can be judged under any of the conventions in :data:`CONVENTIONS` as well, which name the
space in which a prediction is fitted whatever it was predicted in: how far the protocol alone moves a score.

``normals-*``, ``appearance-*`` and ``lighting-*`` (:mod:`dav2.scores.layer_protocols`) judge layers instead of depth.

``metric-*`` measure metres as predicted. ``da-v2-edges`` is for sets whose depth is exact at object borders: the whole
image under the first convention up to 80 m, with boundary scores.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Convention = Literal["ls-depth", "ls-disparity", "ls-root-disparity", "ransac-log", "median"]
Alignment = Literal["disparity", "native", "none"] | Convention
CONVENTIONS: dict[str, Alignment] = {each: each for each in (*get_args(Convention), "none")}
"""Conventions by name: what any declared protocol becomes when its alignment alone is exchanged."""
RULES = 2
"""Counted up when the same fields begin to mean another score. 2: crops to the pixel, the fit under ``native`` and the
reduced maps of ``fit_side`` are those of the published codes (``docs/referee.md``)."""
FAMILIES = ("da-v2-", "marigold-", "moge-", "metric-")
"""What the names of declared protocols begin with; the name of the data set follows."""


@dataclass(frozen=True, slots=True)
class Crop:
    """Scored region as fractions of height and width; bounds are rounded down to pixels."""

    top: float
    bottom: float
    left: float
    right: float

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """(height, width), true inside the crop."""

        # Cut off as the published codes do: 0.99189189 of KITTI's 370 rows ends before row 366, a hair below 367.
        top, bottom = int(self.top * height), int(self.bottom * height)
        inside = np.zeros((height, width), dtype=bool)
        inside[top:bottom, int(self.left * width) : int(self.right * width)] = True
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
            (disparity models as above, but for pixels where they say 0 or less; depth models to depth); ``none`` takes
            metres as they are. The conventions
            fit in the space they name (:func:`dav2.scores.scoring.fit_depth`): ``ls-depth``, ``ls-disparity`` and
            ``ls-root-disparity`` by least squares, ``ransac-log`` by RANSAC in ln(1 + depth), and ``median`` takes
            metres times one factor.
        min_depth: metres; pixels of the truth at or below it do not count.
        max_depth: metres; pixels of the truth beyond it do not count (sky never does). Predictions are clipped to both.
        crop: scored region, ``None`` for all of the image.
        input_crop: (rows, columns) cut out before prediction, bottom and centre as in KITTI's depth benchmark; an image
            that is smaller stays whole.
        floor: least aligned disparity: 1/``max_depth``, 1/(largest truth of the image), or a number.
        image_side: longest side in pixels to which images are reduced before prediction, ``None`` for as they are.
        fit_side: scale and shift are fitted on maps reduced to this longest side by taking the nearest pixel, ``None``
            for all pixels.
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
        text = json.dumps({**asdict(self), "rules": RULES}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def set_name(self) -> str:
        """The data set that the protocol was declared for: ``nyu`` of ``metric-nyu`` and of ``marigold-nyu``."""
        family = next((each for each in FAMILIES if self.name.startswith(each)), "")
        return self.name.removeprefix(family).split("+")[0].split("-")[0]

    @property
    def takes_relative(self) -> bool:
        """Whether depth up to scale and shift can be judged by it: without a shift it means nothing in metres."""
        return self.alignment not in ("none", "median")

    def under(self, convention: str) -> Protocol:
        """The same region, range and resolution under another convention.

        Raises:
            ValueError: there is none of that name.
        """
        if convention not in CONVENTIONS:
            raise ValueError(f"no convention '{convention}'; there are: {', '.join(CONVENTIONS)}")
        return replace(self, name=f"{self.name}+{convention}", alignment=CONVENTIONS[convention])

    def describe(self) -> str:
        """One sentence for the report."""
        fit = {
            "disparity": "scale and shift fitted in disparity by least squares",
            "native": "scale and shift fitted in the model's own space by least squares",
            "none": "no alignment: metres as predicted",
            "ls-depth": "scale and shift fitted in depth by least squares",
            "ls-disparity": "scale and shift fitted in disparity by least squares",
            "ls-root-disparity": "scale and shift fitted in the root of disparity by least squares",
            "ransac-log": "scale and shift fitted in the logarithm of 1 + depth by RANSAC",
            "median": "metres times the factor that makes the medians equal",
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
        Protocol("metric-plain", "none"),
        Protocol("metric-nyu", "none", max_depth=10.0, crop=NYU_EIGEN, frames=654),
        Protocol("metric-kitti", "none", crop=KITTI_GARG, **kitti),  # type: ignore[arg-type]
        Protocol("metric-kitti-eigen", "none", crop=KITTI_EIGEN, **kitti),  # type: ignore[arg-type]
    ]


PROTOCOLS: dict[str, Protocol] = {p.name: p for p in [*_da_v2(), *_marigold(), *_moge(), *_metric()]}


def chosen_protocols(declared: Protocol, wanted: Sequence[str]) -> list[Protocol]:
    """Protocols by which one benchmark is to be judged, beside the one that the settings declare for it.

    Args:
        declared: the benchmark's own.
        wanted: names of protocols (those declared for another data set are passed over), names of conventions, or
            ``all``: every convention, and every protocol declared for the same data set.

    Raises:
        ValueError: a name is neither a protocol nor a convention.
    """
    found: dict[str, Protocol] = {}
    for name in wanted:
        if name == "all":
            both = [each for each in PROTOCOLS.values() if each.set_name == declared.set_name]
            both += [declared.under(each) for each in CONVENTIONS]
        elif name in CONVENTIONS:
            both = [declared.under(name)]
        elif name in PROTOCOLS:
            both = [PROTOCOLS[name]] if PROTOCOLS[name].set_name == declared.set_name else []
        else:
            known = ", ".join(["all", *CONVENTIONS, *PROTOCOLS])
            raise ValueError(f"no protocol '{name}'; there are: {known}")
        found |= {each.name: each for each in both}
    found.pop(declared.name, None)
    return list(found.values())
