"""Which scenes make which part of the sample data, and at what size."""

from __future__ import annotations

from dav2.scenes.sets import benchmarks, layers, training
from dav2.scenes.sets.plan import SampleSet

SETS: dict[str, SampleSet] = {
    **training.SETS,
    **benchmarks.SETS,
    **{made.name: made for made in (layers.HypersimLayers(), layers.InteriorVerse())},
}
