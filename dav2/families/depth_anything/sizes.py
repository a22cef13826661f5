"""The sizes a model comes in.

``vits`` … ``vitg`` are the published ones (arXiv 2406.09414, with the encoder sizes of DINOv2, arXiv 2304.07193).
``vitn`` and ``vitt`` are small ones of the same make that train on a processor in minutes; they are what the sample
pipeline uses and have no published weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PATCH = 14
"""Side of an image patch in pixels; input sides are multiples of it."""
GRID = 37
"""Side of the stored positional-embedding table in patches: DINOv2 ends its training at 518 = 37 × 14 pixels."""


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of one model size.

    Attributes:
        dim: width of the encoder's tokens.
        depth: number of transformer blocks.
        heads: attention heads per block.
        ffn: hidden width of the feed-forward part.
        taps: the four blocks, counted from 0, whose output the decoder reads.
        features: channels of the decoder's fusion blocks.
        out_channels: channels of the four reassembled maps, finest first.
        input_size: native short side of the input in pixels.
        swiglu: gated feed-forward (the giant size) instead of GELU.
        pretrained: whether DINOv2 weights exist for the encoder; the others start from a smooth positional embedding.
    """

    dim: int
    depth: int
    heads: int
    ffn: int
    taps: tuple[int, int, int, int]
    features: int
    out_channels: tuple[int, int, int, int]
    input_size: int = 518
    swiglu: bool = False
    pretrained: bool = True


SizeName = Literal["vitn", "vitt", "vits", "vitb", "vitl", "vitg"]

SIZES: dict[str, Size] = {
    "vitn": Size(128, 8, 2, 512, (1, 3, 5, 7), 32, (24, 48, 96, 128), input_size=84, pretrained=False),
    "vitt": Size(192, 8, 3, 768, (1, 3, 5, 7), 32, (24, 48, 96, 192), input_size=84, pretrained=False),
    "vits": Size(384, 12, 6, 1536, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
    "vitb": Size(768, 12, 12, 3072, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
    "vitl": Size(1024, 24, 16, 4096, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
    "vitg": Size(1536, 40, 24, 4096, (9, 19, 29, 39), 384, (1536, 1536, 1536, 1536), swiglu=True),
}


def get_size(name: str) -> Size:
    """Dimensions of the size ``name``.

    Raises:
        ValueError: there is no such size; the message lists those there are.
    """
    try:
        return SIZES[name]
    except KeyError:
        raise ValueError(f"no model size '{name}'; there are: {', '.join(SIZES)}") from None
