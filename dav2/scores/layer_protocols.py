"""Named protocols of normals, appearance and light: what decides such a score, declared as that of depth is.

``normals-<set>`` measure angles; input sizes and frame counts are those of Marigold's published evaluation.
``appearance-*`` (albedo, roughness, metallicity) and ``lighting-*`` (albedo, shading, residual) measure PSNR and SSIM
(:mod:`dav2.scores.intrinsics`); ``*-plain`` take any set at its own size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from dav2.maps import Quantity
from dav2.scores.protocols import PROTOCOLS, Protocol

LAYER_RULES = 1
"""Counted up when the same fields begin to mean another score."""


@dataclass(frozen=True, slots=True)
class LayerProtocol:
    """How predicted layers become numbers (:func:`dav2.scores.layers.score_layers`).

    Attributes:
        name: unique name.
        quantities: layers that are judged together; a model must predict them all.
        gamma_coded: layers whose predictions are x^(1/2.2) of linear values. The released appearance model gives
            albedo, roughness and metallicity so, though it calls the last two linear; our own models give linear ones.
        image_side: longest side in pixels to which images are reduced before prediction, ``None`` for as they are.
        keys: regular expression that a frame's key must match.
        frames: number of frames of the full benchmark, ``None`` where it is not fixed.
        min_pixels: frames with fewer valid pixels of a layer are counted as ``too few valid pixels``.
        input_crop: none is cut.
    """

    name: str
    quantities: tuple[Quantity, ...]
    gamma_coded: tuple[Quantity, ...] = ()
    image_side: int | None = None
    keys: str = ""
    frames: int | None = None
    min_pixels: int = 10
    input_crop: None = None

    def digest(self) -> str:
        """First 16 hexadecimal digits of the sha256 over every field: equal digests mean equal rules."""
        text = json.dumps({**asdict(self), "rules": LAYER_RULES}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One sentence for the report."""
        if self.quantities == (Quantity.NORMALS,):
            return "angles in degrees to the true normals, wherever these are known"
        coded = f"; predictions of {', '.join(self.gamma_coded)} are gamma-coded" if self.gamma_coded else ""
        light = "; shading and residual each up to one factor" if Quantity.SHADING in self.quantities else ""
        return f"PSNR and SSIM of {', '.join(self.quantities)}, masked, albedo gamma-coded{light}{coded}"


def _layers() -> list[LayerProtocol]:
    normals = (Quantity.NORMALS,)
    sets: dict[str, tuple[int | None, int | None]] = {
        "scannet": (640, 300), "nyu": (640, 654), "ibims": (640, 100), "diode": (768, 771), "oasis": (768, 10000),
        "sintel": (None, 1064), "plain": (None, None),
    }  # fmt: skip
    appearance = (Quantity.ALBEDO, Quantity.ROUGHNESS, Quantity.METALLICITY)
    lighting = (Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL)
    return [
        *(LayerProtocol(f"normals-{name}", normals, image_side=side, frames=n) for name, (side, n) in sets.items()),
        LayerProtocol("appearance-plain", appearance),
        LayerProtocol("appearance-interiorverse", appearance, image_side=640, frames=2671),
        LayerProtocol("appearance-released", appearance, gamma_coded=appearance, image_side=640, frames=2671),
        LayerProtocol("lighting-plain", lighting),
        LayerProtocol("lighting-hypersim", lighting, frames=5237),
    ]


LAYER_PROTOCOLS: dict[str, LayerProtocol] = {p.name: p for p in _layers()}


def narrowed(protocol: LayerProtocol, layers: Sequence[Quantity]) -> LayerProtocol:
    """The rules for those of its layers that are there: the same numbers for each, under a digest of their own.

    The recomposition needs all of its layers.
    """
    return replace(protocol, quantities=tuple(each for each in protocol.quantities if each in layers))


def declared(name: str) -> Protocol | LayerProtocol:
    """Protocol by name, of depth or of layers.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name in LAYER_PROTOCOLS:
        return LAYER_PROTOCOLS[name]
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise ValueError(f"no protocol '{name}'; there are: {', '.join([*PROTOCOLS, *LAYER_PROTOCOLS])}")
