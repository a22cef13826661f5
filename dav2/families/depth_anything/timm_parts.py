"""timm's parts of a vision transformer, without the compiler that importing them brings in.

timm imports torchvision for tools that nothing here uses, and torchvision imports PyTorch's compiler to ask it one
question when an operator runs. That takes as long as everything else that a prediction needs to begin, so the compiler
is set aside while timm is imported; whoever compiles a network afterwards gets the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

COMPILER = "torch._dynamo"


def _as_it_is(fn: Callable[..., object] | None = None, *_: object, **__: object) -> Callable[..., object] | None:
    """What marks a function that is never to be compiled: here it needs no mark."""
    return fn


def _compiles(device: str) -> bool:
    """The question, passed on to the real compiler when an operator of torchvision does run."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Put a stand-in of two names in the place of the compiler, unless that is imported already."""
    if COMPILER in sys.modules:
        yield
        return
    package, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    vars(package).update(__path__=[], disable=_as_it_is, utils=utils)
    vars(utils).update(is_compile_supported=_compiles)
    stand_ins = {COMPILER: package, utils.__name__: utils}
    sys.modules |= stand_ins
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


with _without_compiler():
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp, SwiGLUPacked
    from timm.layers.norm import LayerNorm
    from timm.layers.patch_embed import PatchEmbed
    from timm.models.vision_transformer import Block

__all__ = ["Attention", "Block", "LayerNorm", "Mlp", "PatchEmbed", "SwiGLUPacked"]
