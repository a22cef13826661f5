"""The sizes a model comes in.

``vits`` … ``vitg`` are the published ones (arXiv 2406.09414, with the encoder sizes of DINOv2, arXiv 2304.07193).
``vitn`` and ``vitt`` are small ones of the same make that train on a processor in minutes; they are what the sample
pipeline uses and have no published weights. Those with a 3 in their names have the encoder of DINOv3
(arXiv 2508.10104) under the same decoder: ``vits3``, ``vits3plus``, ``vitb3`` and ``vitl3`` in its published sizes, and
``vitt3``, small. Nobody has published a Depth Anything model of those.
"""

from __future__ import annotations

from dataclasses import dataclass

PATCH = 14
"""Side of an image patch of DINOv2 in pixels; input sides are multiples of it."""
PATCH_3 = 16
"""The same of DINOv3."""
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
        swiglu: gated feed-forward (the giant size, and S+ of DINOv3) instead of GELU.
        pretrained: whether weights of the encoder are published; DINOv2's start from a smooth positional embedding
            where they are not.
        dinov3: whether the encoder is DINOv3's instead of DINOv2's.
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
    dinov3: bool = False

    @property
    def patch(self) -> int:
        """Side of an image patch in pixels."""
        return PATCH_3 if self.dinov3 else PATCH


SIZES: dict[str, Size] = {
    "vitn": Size(128, 8, 2, 512, (1, 3, 5, 7), 32, (24, 48, 96, 128), input_size=84, pretrained=False),
    "vitt": Size(192, 8, 3, 768, (1, 3, 5, 7), 32, (24, 48, 96, 192), input_size=84, pretrained=False),
    "vits": Size(384, 12, 6, 1536, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
    "vitb": Size(768, 12, 12, 3072, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
    "vitl": Size(1024, 24, 16, 4096, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
    "vitg": Size(1536, 40, 24, 4096, (9, 19, 29, 39), 384, (1536, 1536, 1536, 1536), swiglu=True),
    "vitt3": Size(192, 12, 3, 768, (2, 5, 8, 11), 32, (24, 48, 96, 192), 96, pretrained=False, dinov3=True),
    "vits3": Size(384, 12, 6, 1536, (2, 5, 8, 11), 64, (48, 96, 192, 384), 512, dinov3=True),
    "vits3plus": Size(384, 12, 6, 1536, (2, 5, 8, 11), 64, (48, 96, 192, 384), 512, swiglu=True, dinov3=True),
    "vitb3": Size(768, 12, 12, 3072, (2, 5, 8, 11), 128, (96, 192, 384, 768), 512, dinov3=True),
    "vitl3": Size(1024, 24, 16, 4096, (4, 11, 17, 23), 256, (256, 512, 1024, 1024), 512, dinov3=True),
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
