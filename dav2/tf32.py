"""Where float32 means float32: parts of the model whatever runs around them, and products on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast switched off; the meta device, on which operations are only counted, has none to switch off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def allow_tf32(allowed: bool) -> bool:
    """Whether this process may multiply float32 in TF32 on a GPU, in matrix products and convolutions.

    TF32 keeps 10 of the 23 bits of a mantissa: predictions move by 2e-4 to 5e-4 of their range. torch allows it in
    convolutions unless it is told not to. A processor never uses it.

    torch has an older and a newer set of switches, and reading one after setting the other raises. Only the older one
    is used here: everything can still be read afterwards, by torch.compile too.

    Returns:
        Whether either of the two was allowed before.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = "tf32" in (matmul.fp32_precision, cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
    matmul.allow_tf32 = allowed
    cudnn.allow_tf32 = allowed
    return before
