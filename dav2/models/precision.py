"""Parts of the model that are computed in float32 whatever runs around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast switched off; the meta device, on which operations are only counted, has none to switch off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
