"""What the errors of a GPU mean, and what to do about them.

CUDA reports most of them at some later call, with a text for programmers. The ones that a user meets are told apart
here: no memory left, a card that another program holds, a card that is lost, a driver or a
PyTorch that does not fit it.
"""

from __future__ import annotations

from collections.abc import Sequence

_LOST = (
    "fallen off the bus",
    "uncorrectable ECC",
    "device not ready",
    "unspecified launch failure",
    "illegal memory access",
    "device-side assert",
    "hardware error",
)
_BUSY = ("busy or unavailable", "exclusive-thread device", "all CUDA-capable devices are busy")
_NO_KERNEL = ("no kernel image", "PTX JIT compiler", "unsupported toolchain", "provided PTX was compiled")
_OLD_DRIVER = (
    "driver version is insufficient",
    "driver on your system is too old",
    "forward compatibility was attempted",
)
FOREIGN = 2**30
"""Bytes that other programs must hold for it to be worth saying."""


def told(error: BaseException) -> str | None:
    """A sentence for a user; ``None`` where it is no error of a GPU that is known here."""
    if not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if "CUDA" not in text and "driver" not in text and "GPU" not in text:
        return None
    first = text.splitlines()[0]
    if _says(text, _OLD_DRIVER):
        return f"the GPU's driver is too old for this PyTorch ({first}); update the driver, or install an older PyTorch"
    if _says(text, _NO_KERNEL):
        return (
            f"this PyTorch has no kernels for the GPU, or its driver cannot load them ({first}); dav2 doctor shows both"
        )
    if _says(text, _BUSY):
        return (
            f"the GPU is held by another program that shares it with nobody ({first}); wait for it, or choose another "
            "card with CUDA_VISIBLE_DEVICES"
        )
    if _says(text, _LOST):
        return (
            f"the GPU was lost while it worked ({first}). Everything written until then is whole: start the same "
            "command again and it goes on; if it happens again, look at 'Xid' in dmesg and at the card's heat"
        )
    return None


def others_hold(free: int, total: int, reserved: int) -> str:
    """A clause about memory that other programs hold on a card; empty where that is next to nothing.

    Args:
        free, total: bytes, as the driver counts them.
        reserved: bytes that this process has taken.
    """
    others = total - free - reserved
    if others < FOREIGN:
        return ""
    return f"; other programs hold {others / 2**30:.1f} of its {total / 2**30:.0f} GiB (nvidia-smi shows them)"


def memory_note() -> str:
    """:func:`others_hold` of this process's GPU; empty where there is none, or it does not answer any more."""
    import torch

    if not torch.cuda.is_available():
        return ""
    try:
        return others_hold(*torch.cuda.mem_get_info(), torch.cuda.memory_reserved())
    except RuntimeError:
        return ""


def lacks_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Whether a PyTorch ``built_for`` (``sm_80``, ``compute_90`` …) has no code that runs on ``capability``.

    Machine code runs on the same generation from its own revision on; an intermediate form (``compute``) on all later.
    """
    own = capability[0] * 10 + capability[1]
    for each in built_for:
        kind, _, digits = each.partition("_")
        number = int("".join(letter for letter in digits if letter.isdigit()) or 0)
        same = number // 10 == capability[0] and number <= own
        if (kind == "sm" and same) or (kind == "compute" and number <= own):
            return False
    return bool(built_for)


def _says(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase.lower() in text.lower() for phrase in phrases)
