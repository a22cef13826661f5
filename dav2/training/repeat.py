"""Two runs that are equal on a GPU: ``compute.deterministic`` (docs/repeat.md). On a processor they are anyway."""

from __future__ import annotations

import os

REPEATABLE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Environment in which cuBLAS repeats. It has to stand there before CUDA starts, so launchers set it."""


def repeat_exactly() -> None:
    """Take only algorithms that repeat, in this process and from now on.

    An operation without one raises a ``RuntimeError`` that names it, so a run never silently breaks the promise.
    Call it before anything runs on the GPU: ranks that no launcher of ours started (Slurm, Ray, by hand) get
    :data:`REPEATABLE` here.
    """
    import torch

    for name, value in REPEATABLE.items():
        os.environ.setdefault(name, value)
    torch.use_deterministic_algorithms(True)
    # Memory that was never written is never read here; filling all of it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
