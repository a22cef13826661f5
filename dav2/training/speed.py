"""How much of a GPU a run uses: what stands in its journal beside images per second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dav2 import chips
from dav2.documents import StepLine

if TYPE_CHECKING:
    import torch

    from dav2.params import RecipeParams
    from dav2.training.task import Task

BACKWARD_AND_FORWARD = 3
"""Operations of a step over those of a forward pass. What is recomputed is no useful work and does not count; nor do a
frozen encoder's features and the optimiser, which are a few hundredths."""


def reached(task: Task, settings: RecipeParams, rate: float, device: torch.device) -> dict[str, float]:
    """``tflops`` of each GPU and ``peak_share`` of its data sheet's peak; nothing where they are not known.

    Args:
        rate: images per second of one device.
    """
    if device.type != "cuda":
        return {}
    import torch

    return described(task, settings, rate, torch.cuda.get_device_name(device))


def described(task: Task, settings: RecipeParams, rate: float, name: str) -> dict[str, float]:
    """As :func:`reached`, on the device that its driver calls ``name``."""
    shapes = settings.shapes
    forward = sum(task.gflops(*shape) for shape in shapes) / len(shapes)
    if not forward:
        return {}
    tflops, share = chips.speed(BACKWARD_AND_FORWARD * forward, rate, name)
    return {"tflops": round(tflops, 1), **({} if share is None else {"peak_share": round(share, 4)})}


def told(line: StepLine) -> str:
    """How fast a run goes, for people."""
    device = ""
    if line.tflops is not None:
        share = f" ({line.peak_share:.0%} of the peak)" if line.peak_share is not None else ""
        device = f"  {line.tflops:.0f} TFLOP/s{share}  {line.memory_mb / 1024:.1f} GiB"
    return f"{line.images_per_second:.1f} images/s{device}  waiting for data {line.data_wait:.0%}"
