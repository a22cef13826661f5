"""What goes wrong in training, as a person can act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dav2.failures import out_of_memory
from dav2.gpu_errors import memory_note, told

if TYPE_CHECKING:
    from dav2.training.recipes import Recipe


class TrainingError(RuntimeError):
    """A run cannot start or go on; the message says why and what to do."""


class Interrupted(TrainingError):
    """The run was asked to stop, has written a checkpoint, and goes on when it is started again."""


def explained(error: RuntimeError, recipe: Recipe) -> TrainingError | None:
    """What an update raised, as a sentence with a cure; ``None`` where it is no fault of a device."""
    if out_of_memory(error):
        settings = recipe.settings
        accumulate = settings.optim.accumulate
        return TrainingError(
            f"{recipe.name}: {settings.batch // accumulate} images of {settings.crop} pixels do not fit the memory of "
            f"the device{memory_note()}. Set optim.accumulate: {2 * accumulate} (the same batch in smaller pieces), or "
            "compute.activation_checkpointing: true; 'dav2 plan train' says what fits. Checkpoints are whole; another "
            "optim.accumulate is another recipe and begins anew"
        )
    known = told(error)
    return TrainingError(f"{recipe.name}: {known}") if known is not None else None
