"""One builder per kind of DA-2K scene: ``KINDS[kind](rng) -> Scene``."""

from __future__ import annotations

from collections.abc import Callable

from dav2.scenes.kinds import indoor, others, outdoor
from dav2.scenes.scene import Scene
from dav2.scenes.textures import Random

KINDS: dict[str, Callable[[Random], Scene]] = {
    "indoor": indoor.build,
    "outdoor": outdoor.build,
    "non_real": others.non_real,
    "transparent_reflective": others.transparent_reflective,
    "adverse_style": others.adverse_style,
    "aerial": others.aerial,
    "underwater": others.underwater,
    "object": others.objects,
}
