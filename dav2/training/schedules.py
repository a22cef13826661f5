"""Learning-rate schedules as pure functions of the step, so that there is nothing to save and nothing to restore."""

from __future__ import annotations

import math

from dav2.params import OptimParams


def learning_rate_factor(step: int, total: int, optim: OptimParams) -> float:
    """Factor on the base learning rates for the update that turns ``step`` finished steps into ``step + 1``.

    During warm-up it rises linearly from ``1 / warmup_steps`` to 1; after it, with ``x`` the share of the remaining
    steps that is done: ``constant`` 1, ``linear`` 1 - x, ``poly`` (1 - x)^power, ``cosine`` (1 + cos πx) / 2.

    Args:
        step: updates done so far, from 0.
        total: updates of the whole run.
        optim: ``schedule``, ``warmup_steps`` and ``poly_power`` are read.

    Returns:
        A value in [0, 1]; never 0 before the last update is done.
    """
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, total - optim.warmup_steps)
    left = 1.0 - min(done, 1.0)
    match optim.schedule:
        case "constant":
            return 1.0
        case "linear":
            return left
        case "poly":
            return float(left**optim.poly_power)
        case "cosine":
            return (1.0 + math.cos(math.pi * (1.0 - left))) / 2.0
