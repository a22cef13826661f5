"""Objectives by the name in ``params.yaml``."""

from __future__ import annotations

from dav2.families.marigold.distillation import Distillation
from dav2.families.marigold.objectives import Diffusion, Objective, OneStepDecoded, OneStepLatent, Photographs
from dav2.families.marigold.refinement import Refinement

OBJECTIVES: dict[str, type[Objective]] = {
    "diffusion": Diffusion,
    "one_step_x0": OneStepLatent,
    "one_step_decoded": OneStepDecoded,
    "photographs": Photographs,
    "refine": Refinement,
    "lcm": Distillation,
}
"""One strategy, chosen by each run."""
