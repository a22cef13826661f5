"""Models side by side, and whether a difference is more than chance.

Two models are compared on the same images only: DA-2K pairs of the same data, benchmark frames of the same data under
the same protocol. Anything else is left out and said so, never compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dav2.documents import ScoreFile
from dav2.maps import LAYERS, Quantity
from dav2.scores.depth import HIGHER_IS_BETTER
from dav2.scores.statistics import Difference, bootstrap_difference

ANGLE = "mean"
PSNR = tuple(f"{layer.value}_psnr" for layer in LAYERS if layer is not Quantity.NORMALS)
HEADLINE = ("abs_rel", "delta1", "boundary_f1", ANGLE, *PSNR)
"""Benchmark metrics that are compared: of depth, of normals, of the layers of appearance and light."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of ``model`` against ``reference`` on ``images`` common images.

    ``better`` is +1 or −1 where the 95 % interval of the difference leaves out zero, else 0.
    """

    model: str
    reference: str
    benchmark: str
    metric: str
    score: float
    reference_score: float
    difference: Difference
    images: int

    @property
    def better(self) -> int:
        """+1 or −1 where the interval of the difference leaves out zero, else 0."""
        if not (self.difference.low > 0 or self.difference.high < 0):
            return 0
        sign = 1 if self.difference.value > 0 else -1
        return sign if self.metric in HIGHER_IS_BETTER or self.metric in PSNR else -sign


def compare(
    model: ScoreFile, reference: ScoreFile, *, samples: int = 2000, seed: int = 0
) -> tuple[list[Comparison], list[str]]:
    """All comparisons that can be made between two score files, and a sentence for each that cannot."""
    comparisons: list[Comparison] = []
    notes: list[str] = []
    if model.da2k is not None and reference.da2k is not None:
        if model.da2k.data == reference.da2k.data:
            comparisons.append(_compare_da2k(model, reference, samples, seed))
        else:
            notes.append("da2k: the two were scored on different data")
    for name in (each for each in model.benchmarks if each in reference.benchmarks):
        first, second = model.benchmarks[name], reference.benchmarks[name]
        if (first.data, first.protocol_hash) != (second.data, second.protocol_hash):
            notes.append(f"{name}: the two were scored on different data or under different protocols")
            continue
        for metric in HEADLINE:
            comparisons += _compare_frames(model, reference, name, metric, samples, seed)
    return comparisons, notes


def _compare_da2k(model: ScoreFile, reference: ScoreFile, samples: int, seed: int) -> Comparison:
    first, second = ({i.key: i for i in each.da2k.per_image} for each in (model, reference) if each.da2k is not None)
    keys = sorted(first.keys() & second.keys())
    right = [[each[key].right for key in keys] for each in (first, second)]
    pairs = [len(first[key].outcomes) for key in keys]
    difference = bootstrap_difference(right[0], right[1], pairs, samples=samples, seed=seed)
    totals = [sum(each) / max(1, sum(pairs)) for each in right]
    return Comparison(model.model, reference.model, "da2k", "accuracy", totals[0], totals[1], difference, len(keys))


def _compare_frames(
    model: ScoreFile, reference: ScoreFile, name: str, metric: str, samples: int, seed: int
) -> list[Comparison]:
    frames = [each.benchmarks[name].per_frame for each in (model, reference)]
    first, second = (each.of(metric) if each is not None else {} for each in frames)
    keys = sorted(first.keys() & second.keys())
    if not keys:
        return []
    values = [np.array([each[key] for key in keys]) for each in (first, second)]
    difference = bootstrap_difference(values[0], values[1], np.ones(len(keys)), samples=samples, seed=seed)
    scores = [float(each.mean()) for each in values]
    return [Comparison(model.model, reference.model, name, metric, scores[0], scores[1], difference, len(keys))]
