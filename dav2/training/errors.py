"""What goes wrong in training, as a person can act on it."""

from __future__ import annotations


class TrainingError(RuntimeError):
    """A run cannot start or go on; the message says why and what to do."""


class Interrupted(TrainingError):
    """The run was asked to stop, has written a checkpoint, and goes on when it is started again."""
