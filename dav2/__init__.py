"""dav2: the open training system for Depth Anything V2.

``dav2.load`` is the way to a model; everything else lies in the subpackages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dav2.families.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import; commands that need no model must not wait for it.
    if name == "load":
        from dav2.families.loading import load

        return load
    raise AttributeError(f"module 'dav2' has no attribute '{name}'")
