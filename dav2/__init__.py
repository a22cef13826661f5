"""dav2: the open training system for Depth Anything V2.

``dav2.infer(photograph, model)`` is depth in one line, ``dav2.load(model)`` the way to a model; everything else lies in
the subpackages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dav2.families.loading import load
    from dav2.predict.answer import infer

__all__ = ["infer", "load"]
_PLACES = {"infer": "dav2.predict.answer", "load": "dav2.families.loading"}


def __getattr__(name: str) -> object:
    # Torch takes seconds to import; commands that need no model must not wait for it.
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("dav2")
    raise AttributeError(f"module 'dav2' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
