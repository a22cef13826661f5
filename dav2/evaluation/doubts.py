"""What looks wrong with maps made elsewhere, told by the scores: the wrong sense, the wrong unit, nothing in them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.documents import Da2kScores
from dav2.maps import FLOOR, Quantity

PIXELS = 4096
"""Pixels of a frame that are looked at."""
UNITS = {
    1e-3: "millimetres",
    1e-2: "centimetres",
    1 / 256: "metres times 256, as KITTI's PNG files hold",
    1 / 5000: "metres times 5000, as TUM's PNG files hold",
    1e3: "kilometres",
}
"""Factor that makes metres of a unit → its name."""
CLOSE = 1.6
"""A unit explains a factor that is at most this many times its own: half the way to the next."""


class Seen(NamedTuple):
    """What one map says beside the truth.

    Attributes:
        agreement: rank correlation of nearness with true nearness, −1 to 1; 0 where either is constant.
        factor: median true depth / median map, for metres with a truth in metres; else ``nan``.
        constant: whether the map has one value only.
    """

    agreement: float
    factor: float
    constant: bool


def look(values: NDArray[np.float32], depth: NDArray[np.float32], quantity: Quantity, metric: bool) -> Seen:
    """Hold a map (H, W) beside the true depth (H, W), on at most :data:`PIXELS` pixels whose depth is known."""
    from scipy.stats import spearmanr

    known = np.flatnonzero(np.isfinite(depth) & np.isfinite(values))
    if len(known) < 2:
        return Seen(0.0, float("nan"), constant=False)
    chosen = known[:: max(1, len(known) // PIXELS)]
    v, d = values.ravel()[chosen], depth.ravel()[chosen]
    constant = bool(v.min() == v.max())
    agreement = 0.0 if constant or d.min() == d.max() else float(spearmanr(quantity.sign * v, -d).statistic)
    measured = quantity is Quantity.METRES and metric
    factor = float(np.median(d)) / max(float(np.median(v)), FLOOR) if measured else float("nan")
    return Seen(agreement, factor, constant)


def doubts(seen: Iterable[Seen], da2k: Da2kScores | None, quantity: Quantity) -> list[str]:
    """Sentences about what looks wrong; none where nothing does.

    Args:
        seen: of every frame with a true depth.
        da2k: DA-2K score of the same maps, if it was taken.
        quantity: as declared.
    """
    frames = list(seen)
    said = [_sense(frames, da2k, quantity), _unit(frames)]
    constant = sum(each.constant for each in frames)
    if constant:
        said.append(f"{constant} of {len(frames)} maps have one value everywhere")
    return [each for each in said if each]


def _sense(frames: list[Seen], da2k: Da2kScores | None, quantity: Quantity) -> str:
    against = sum(each.agreement < 0 for each in frames)
    evidence = []
    middle = float(np.median([each.agreement for each in frames])) if frames else 0.0
    if middle < -0.2 and against > 0.6 * len(frames):
        evidence.append(
            f"on {against} of {len(frames)} frames with depth it is far (median rank correlation {middle:+.2f})"
        )
    if da2k is not None and _inverts(da2k):
        evidence.append(f"of the DA-2K pairs it orders {100 * (da2k.accuracy or 0.0):.1f} % rightly")
    if not evidence:
        return ""
    other = "depth or metres" if quantity.sign > 0 else "disparity"
    return (
        f"the maps look inverted: where they say near as {quantity.value}, {' and '.join(evidence)}; "
        f"if larger means {'farther' if quantity.sign > 0 else 'nearer'} in them, say --quantity {other}"
    )


def _inverts(da2k: Da2kScores) -> bool:
    """Whether most pairs are ordered wrongly, and not by chance; ties do not count as wrong here."""
    if da2k.accuracy is None or da2k.high is None:
        return False
    return da2k.accuracy < 0.4 and da2k.high < 0.5 and da2k.outcomes.get("wrong", 0) > 0.5 * da2k.pairs


def _unit(frames: list[Seen]) -> str:
    factors = [each.factor for each in frames if np.isfinite(each.factor)]
    if not factors:
        return ""
    middle = float(np.median(factors))
    unit = min(UNITS, key=lambda each: abs(np.log(middle / each)))
    if abs(np.log(middle / unit)) < np.log(CLOSE):
        return (
            f"the values look like {UNITS[unit]}: the true depth is {middle:.3g} times them (median over "
            f"{len(factors)} frames); say --scale {unit:.6g}"
        )
    if not 1 / 3 <= middle <= 3:
        return (
            f"the true depth is {middle:.3g} times the values (median over {len(factors)} frames): another unit? "
            f"{UNITS[unit]} would be {unit:.3g}"
        )
    return ""
