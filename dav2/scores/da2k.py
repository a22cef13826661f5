"""DA-2K: which of two points is nearer?

The rule (Depth Anything V2, arXiv 2406.09414, section 6 and its annotation files): the prediction is resized to the
original image; a pair is right if and only if the disparity at the nearer point is *strictly* greater than at the
other, so ties are wrong; the score is the share of right pairs over all pairs of all images (micro average).

Coordinates are (row, column) in pixels of the original image.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scores.statistics import bootstrap_ratio


class Outcome(enum.IntEnum):
    """What the prediction says of one pair. Only ``RIGHT`` scores; the others say why not."""

    WRONG = 0
    RIGHT = 1
    TIE = 2
    NOT_FINITE = 3
    """The prediction is NaN or infinite at one of the points."""
    WRONG_SIZE = 4
    """The prediction has another size than the image, so the points cannot be looked up."""


class Pair(NamedTuple):
    """Two points (row, column) and which of them is nearer, 1 or 2."""

    point1: tuple[int, int]
    point2: tuple[int, int]
    closer: int


class Problem(NamedTuple):
    """An annotation that cannot be scored. Counted by ``reason``, never part of the average."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Outcome of every pair of one image, in the order of its annotation."""

    key: str
    kind: str
    pairs: list[Pair]
    outcomes: NDArray[np.int8]

    @property
    def right(self) -> int:
        """Pairs that were judged rightly."""
        return int((self.outcomes == Outcome.RIGHT).sum())


@dataclass(slots=True)
class Score:
    """DA-2K result of one model.

    ``accuracy``, ``low`` and ``high`` are shares in [0, 1]; the interval covers 95 % and resamples images.
    """

    accuracy: float
    low: float
    high: float
    pairs: int
    images: int
    kinds: dict[str, dict[str, float]]
    outcomes: dict[str, int]
    problems: dict[str, int]
    results: list[ImageResult] = field(default_factory=list)


def _read_point(value: object, height: int, width: int) -> tuple[int, int] | str:
    """(row, column), or what is wrong with it."""
    if not (isinstance(value, Sequence | np.ndarray) and len(value) == 2):
        return f"{value!r} is not [row, column]"
    row, column = value
    if not all(isinstance(v, int | float | np.integer | np.floating) and float(v).is_integer() for v in value):
        return f"{value!r} is not a pair of whole numbers"
    if not (0 <= row < height and 0 <= column < width):
        return f"[{row:g}, {column:g}] lies outside the {height} × {width} image"
    return int(row), int(column)


def read_pairs(
    key: str, annotations: Iterable[Mapping[str, object]], height: int, width: int
) -> tuple[list[Pair], list[Problem]]:
    """Checked pairs of one image (``Frame.extra["pairs"]``) and those that cannot be scored.

    Reasons are ``point outside the image``, ``equal points`` and ``malformed annotation``.
    """
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for number, annotation in enumerate(annotations):
        points = [_read_point(annotation.get(name), height, width) for name in ("point1", "point2")]
        wrong = [point for point in points if isinstance(point, str)]
        closer = annotation.get("closer")
        if wrong:
            reason = "point outside the image" if "outside" in wrong[0] else "malformed annotation"
            problems.append(Problem(key, reason, f"pair {number}: {wrong[0]}"))
        elif closer not in (1, 2):
            problems.append(Problem(key, "malformed annotation", f"pair {number}: closer is {closer!r}, not 1 or 2"))
        elif points[0] == points[1]:
            problems.append(Problem(key, "equal points", f"pair {number}: both points are {points[0]}"))
        else:
            pairs.append(Pair(points[0], points[1], int(closer)))  # type: ignore[arg-type]
    return pairs, problems


def judge(disparity: NDArray[np.floating], pairs: Sequence[Pair], height: int, width: int) -> NDArray[np.int8]:
    """Outcome of each pair.

    Args:
        disparity: (height, width) prediction at the size of the original image, larger is nearer. Pass the negated
            depth of models that predict depth.
        pairs: checked pairs of the image.
        height: rows of the image.
        width: columns of the image.
    """
    if disparity.shape != (height, width):
        return np.full(len(pairs), Outcome.WRONG_SIZE, dtype=np.int8)
    if not pairs:
        return np.zeros(0, dtype=np.int8)
    first, second = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    closer = np.array([pair.closer for pair in pairs])
    at_first, at_second = disparity[first[:, 0], first[:, 1]], disparity[second[:, 0], second[:, 1]]
    near = np.where(closer == 1, at_first, at_second)
    far = np.where(closer == 1, at_second, at_first)
    outcomes = np.where(near > far, Outcome.RIGHT, Outcome.WRONG)
    outcomes = np.where(near == far, Outcome.TIE, outcomes)
    finite = np.isfinite(near) & np.isfinite(far)
    return np.where(finite, outcomes, Outcome.NOT_FINITE).astype(np.int8)


def score_image(
    key: str, extra: Mapping[str, Any], disparity: NDArray[np.floating], height: int, width: int
) -> tuple[ImageResult, list[Problem]]:
    """Read and judge the pairs of one frame; ``extra`` is its ``Frame.extra`` (``pairs`` and ``scene``)."""
    pairs, problems = read_pairs(key, extra.get("pairs", ()), height, width)
    outcomes = judge(disparity, pairs, height, width)
    return ImageResult(key, str(extra.get("scene", "unknown")), pairs, outcomes), problems


def summarise(
    results: Sequence[ImageResult], problems: Sequence[Problem] = (), *, samples: int = 2000, seed: int = 0
) -> Score:
    """Micro average over all pairs, per scene kind, with bootstrap intervals over images."""

    def interval(chosen: Sequence[ImageResult]) -> tuple[float, float, float]:
        right = [result.right for result in chosen]
        return bootstrap_ratio(right, [len(result.pairs) for result in chosen], samples=samples, seed=seed)

    scored = [result for result in results if result.pairs]
    kinds: dict[str, dict[str, float]] = {}
    for kind in sorted({result.kind for result in scored}):
        chosen = [result for result in scored if result.kind == kind]
        value, low, high = interval(chosen)
        pairs = sum(len(result.pairs) for result in chosen)
        kinds[kind] = {"accuracy": value, "low": low, "high": high, "pairs": pairs, "images": len(chosen)}
    counts = Counter(int(outcome) for result in scored for outcome in result.outcomes)
    value, low, high = interval(scored)
    return Score(
        accuracy=value,
        low=low,
        high=high,
        pairs=sum(len(result.pairs) for result in scored),
        images=len(scored),
        kinds=kinds,
        outcomes={outcome.name.lower(): counts[outcome.value] for outcome in Outcome},
        problems=dict(Counter(problem.reason for problem in problems)),
        results=list(results),
    )
