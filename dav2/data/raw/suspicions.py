"""What looks wrong in depth of one's own: its unit, its sense, and whether it lies on its photographs.

Nothing here knows the truth. Each rule states what it saw and what that usually means; none of them speaks on the
sample's own data sets, and each does where one of these is damaged in the way that it looks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from dav2.data.frame import Frame

if TYPE_CHECKING:
    from cv2.typing import MatLike

LEAST_FRAMES = 5
"""Fewer frames say nothing about a data set."""
SIDE = 128
"""Pixels of the square in which edges are compared."""
NEAR = 2
"""Displacement in that square that counts as none: the frames' own edges are not sharper."""
LEAST_KNOWN = 0.6
"""Share of a frame whose depth must be known for its edges to be compared."""
TOO_FAR, TOO_NEAR = 300.0, 0.02
"""Metres beyond which the median of a data set's medians is in no photograph of rooms, streets or things."""
UPSIDE = 0.25
"""Mean rank correlation of depth with how low a row lies from which on the ground seems to be far."""
STRONGER = 1.25
"""So many times more must edges agree elsewhere than in place."""
CLEAR = 4.0
"""Deviations by which the agreement must stand out of that at all other displacements."""

Edges = NDArray[np.float64]
TURNS = {
    "upside down": lambda edges: edges[::-1],
    "mirrored": lambda edges: edges[:, ::-1],
    "turned by 180°": lambda edges: edges[::-1, ::-1],
    "transposed (rows for columns)": lambda edges: edges.T,
    "turned by 90°": lambda edges: np.rot90(edges),
    "turned by 270°": lambda edges: np.rot90(edges, 3),
}
SCALES = (0.7, 0.75, 0.8, 0.85, 0.9, 1.1, 1.18, 1.25, 1.33, 1.43)


@dataclass
class Suspicions:
    """Collected frame by frame with :meth:`add`, said with :meth:`said`."""

    medians: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)
    pairs: list[tuple[Edges, Edges]] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        """Look at one frame with depth."""
        if frame.depth is None:
            return
        finite = np.isfinite(frame.depth)
        if not finite.any():
            return
        if frame.metric:
            self.medians.append(float(np.median(frame.depth[finite])))
        rows = [float(np.median(row[mask])) for row, mask in zip(frame.depth, finite, strict=True) if mask.any()]
        if len(rows) > 2 and np.ptp(rows) > 0:
            self.slopes.append(float(spearmanr(np.arange(len(rows)), rows).statistic))
        if finite.mean() >= LEAST_KNOWN:
            self.pairs.append((_edges_of_picture(frame.rgb), _edges_of_depth(frame.depth, finite)))

    def said(self) -> list[str]:
        """A sentence for everything that looks wrong."""
        turned, place = self._place()
        # Of a map that stands on its head, nothing else follows from where it is near.
        return [text for text in (self._unit(), None if turned else self._sense(), place) if text]

    def _unit(self) -> str | None:
        if len(self.medians) < LEAST_FRAMES:
            return None
        middle = float(np.median(self.medians))
        if middle > TOO_FAR:
            return f"half of the frames are farther than {middle:.0f} m; are these millimetres? then say unit: mm"
        if middle < TOO_NEAR:
            return f"half of the frames are nearer than {middle:.2g} m; the unit is too small, or this is disparity"
        return None

    def _sense(self) -> str | None:
        if len(self.slopes) < LEAST_FRAMES or (mean := float(np.mean(self.slopes))) < UPSIDE:
            return None
        return (
            f"depth grows towards the bottom of the photographs (rank correlation {mean:+.2f}), where things are "
            "nearer as a rule; is this disparity? then say kind: disparity"
        )

    def _place(self) -> tuple[bool, str | None]:
        """Whether depth lies turned on its photographs, and what seems wrong with where it lies."""
        if len(self.pairs) < LEAST_FRAMES:
            return False, None
        straight = _agreement(self.pairs)
        here = max(_in_place(straight), 0.0)
        best, text, is_turned = here * STRONGER, None, False
        row, column = np.unravel_index(int(straight.argmax()), straight.shape)
        down, right = (int(n) - SIDE // 2 for n in (row, column))
        if max(abs(down), abs(right)) > NEAR and _stands_out(straight) and straight.max() > best:
            best = float(straight.max())
            text = (
                f"edges of depth and photograph agree best {_moved(right, down)}; is it registered to the photograph?"
            )
        for name, turn in TURNS.items():
            turned = _agreement([(picture, turn(depth)) for picture, depth in self.pairs])
            if _in_place(turned) > best and _stands_out(turned):
                best, is_turned = _in_place(turned), True
                text = f"edges agree best where depth is {name}; it seems to be stored that way"
        for scale in SCALES:
            scaled = _agreement([(picture, _scaled(depth, scale)) for picture, depth in self.pairs])
            if _in_place(scaled) > best and _stands_out(scaled):
                best, is_turned = _in_place(scaled), False
                text = (
                    f"edges agree best where depth is enlarged {scale:g} times about the centre; it seems to be of "
                    "another camera than the photographs, and not registered to them"
                )
        return is_turned, text


def _moved(right: int, down: int) -> str:
    shares = [f"{abs(n) / SIDE:.1%} of the {side} to the {way}" for n, side, way in (
        (right, "width", "right" if right > 0 else "left"), (down, "height", "bottom" if down > 0 else "top")
    ) if abs(n) > NEAR]  # fmt: skip
    return f"where depth is moved by {' and '.join(shares)}"


def _edges_of_picture(rgb: NDArray[np.uint8]) -> Edges:
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32)
    return _edges(cv2.resize(grey, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA))


def _edges_of_depth(depth: NDArray[np.float32], finite: NDArray[np.bool_]) -> Edges:
    """Steps of relative depth; what is not known has none, sky is farther than all else."""
    logarithm = np.log(np.where(finite, depth, np.nan))
    far = np.nanmax(logarithm) + 0.5
    filled = np.where(np.isposinf(depth), far, np.where(finite, logarithm, np.nanmedian(logarithm))).astype(np.float32)
    known = (~np.isnan(depth)).astype(np.float32)
    size, method = (2 * SIDE, 2 * SIDE), cv2.INTER_AREA
    steps = _edges(cv2.resize(filled, size, interpolation=method))
    whole = cv2.resize(known, (SIDE, SIDE), interpolation=method) > 0.99
    return np.where(whole, steps, 0.0)


def _edges(plane: MatLike) -> Edges:
    """Size of the gradient of a float32 plane, its peaks cut off, at half the resolution: float64 (SIDE, SIDE)."""
    along, down = cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    size = np.hypot(along, down)
    size = np.minimum(size, np.percentile(size, 98))
    small = cv2.resize(size, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float64)


def _agreement(pairs: list[tuple[Edges, Edges]]) -> NDArray[np.float64]:
    """Mean correlation of edges at every displacement of depth, (SIDE, SIDE), none in the middle."""
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    total = np.zeros((SIDE, SIDE))
    for picture, depth in pairs:
        one, two = (_normalised(edges) * window for edges in (picture, depth))
        total += np.fft.ifft2(np.fft.fft2(one) * np.conj(np.fft.fft2(two))).real
    return np.fft.fftshift(total / len(pairs) / window.sum())


def _normalised(edges: Edges) -> Edges:
    spread = edges.std()
    return (edges - edges.mean()) / spread if spread > 0 else np.zeros_like(edges)


def _in_place(agreement: NDArray[np.float64]) -> float:
    middle = SIDE // 2
    return float(agreement[middle - NEAR : middle + NEAR + 1, middle - NEAR : middle + NEAR + 1].max())


def _stands_out(agreement: NDArray[np.float64]) -> bool:
    return bool(agreement.max() > agreement.mean() + CLEAR * agreement.std())


def _scaled(edges: Edges, scale: float) -> Edges:
    """Enlarged about the centre, cropped or filled up with nothing to the same size."""
    matrix = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), 0, scale)
    return np.asarray(cv2.warpAffine(edges, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA), np.float64)
