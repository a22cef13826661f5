"""Whether to compile a network before training it, all of it or only its blocks, and where the result is kept.

What pays was measured once (H200, bf16, crop 518, ``docs/gpu.md``): small networks spend their time between kernels and
gain from one graph; of large ones the blocks hold nearly all the work, and blocks alone, which share one graph, are
compiled in 6 s instead of 51 to 67 s and run as fast or faster. So a task says which of the two suits its network.
Evaluation runs uncompiled: it sees other shapes, each of which would be compiled anew for a pass or two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

How = Literal["none", "blocks", "whole"]
Setting = Literal["auto", "none", "blocks", "whole"]


class Choice(NamedTuple):
    """What is compiled, and why, in a clause for a person to read."""

    how: How
    why: str


def choose(setting: Setting, suits: How, device: str, zero_stage: int) -> Choice:
    """What ``compute.compile`` means here.

    Args:
        suits: what the task says of its network on a GPU.
        device: type of the device that trains.
        zero_stage: of the DeepSpeed engine; stage 3 gathers weights around every layer, which no graph survives.
    """
    if setting != "auto":
        return Choice(setting, "asked for")
    if device != "cuda":
        return Choice("none", "a step on a processor gains little, and its results are to stay what they are")
    if zero_stage == 3:
        return Choice("none", "ZeRO stage 3 gathers weights around every layer")
    reasons: dict[How, str] = {
        "none": "nothing is known to be gained for this network",
        "blocks": "a large network: its blocks hold nearly all the work",
        "whole": "a small network: much of its time lies between kernels",
    }
    return Choice(suits, reasons[suits])


def kept(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment in which compiled code outlives process and machine's restart: in the user's cache, unless it is set.

    To be set before torch starts to compile anything: from then on it goes by what it found.
    """
    caches = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {"TORCHINDUCTOR_CACHE_DIR": environment.get("TORCHINDUCTOR_CACHE_DIR", f"{caches}/dav2/compiled")}
