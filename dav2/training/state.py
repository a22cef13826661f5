"""Where a run stands: what a checkpoint holds besides weights and optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class State:
    """Where a run stands; all of it that is not weights or optimiser.

    Data, schedule and random numbers are functions of ``step``, so none of them has a state of its own.

    Attributes:
        step: updates done, skipped ones included.
        skipped: updates skipped because a gradient was not finite.
        bad: of those, the last ones in a row.
        failed_checkpoints: that could not be written.
        best_step: step of the best checkpoint so far.
        best_value: its value; larger is better.
        fingerprint: of the recipe the state belongs to.
        window: updates that no line of the journal tells of yet (:meth:`dav2.training.window.Window.sums`).
    """

    step: int = 0
    skipped: int = 0
    bad: int = 0
    failed_checkpoints: int = 0
    best_step: int | None = None
    best_value: float = -math.inf
    fingerprint: str = ""
    window: dict[str, float] = field(default_factory=dict)
