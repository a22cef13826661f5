"""Depth Anything V2 (arXiv 2406.09414): DINOv2 or DINOv3 encoder, DPT decoder, and the three kinds of head.

A *relative* model ends in ReLU and gives affine-invariant disparity (larger = nearer, ≥ 0). A *metric* model ends in
sigmoid × ``max_depth`` and gives metres (larger = farther). The parameters are the same; ``config`` tells them apart.
A model of *normals* has three channels in its last layer, and gives them as vectors of length 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2.families.depth_anything.dinov2 import DinoV2
from dav2.families.depth_anything.dinov3 import DinoV3
from dav2.families.depth_anything.dpt import DPT
from dav2.families.depth_anything.encoder import Encoder
from dav2.families.depth_anything.on_gpu import predict_there, preprocess_there
from dav2.families.depth_anything.packed import packed_network, serves
from dav2.families.depth_anything.preprocess import LARGE, network_shape, preprocess
from dav2.families.depth_anything.sizes import get_size
from dav2.families.family import described
from dav2.families.vectors import unit
from dav2.maps import Maps, Quantity

LARGEST_INPUT = 14_000


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What it takes to build a model again.

    Attributes:
        size: a name in :data:`dav2.families.depth_anything.sizes.SIZES`.
        max_depth: metres at the far end of a metric model's range; ``None`` for every other model.
        input_size: native short side of the input in pixels, a multiple of the encoder's patch (14, of DINOv3 16).
        target: what a model that is not metric predicts: disparity, or depth or its logarithm, each up to scale and
            shift; or normals.
    """

    size: str
    max_depth: float | None
    input_size: int
    target: Quantity = Quantity.DISPARITY

    def __post_init__(self) -> None:
        get_size(self.size)
        if self.max_depth is not None and not 0 < self.max_depth < float("inf"):
            raise ValueError(f"max_depth must be metres > 0 or None, not {self.max_depth}")
        check_input_size(self.input_size, self.patch)
        if not self.target.relative and self.target is not Quantity.NORMALS:
            raise ValueError(
                f"a model without max_depth predicts disparity, log_depth, depth or normals, not {self.target}"
            )
        if self.metric and self.target is Quantity.NORMALS:
            raise ValueError(f"normals have no range in metres; max_depth must be None, not {self.max_depth}")

    @property
    def patch(self) -> int:
        """Side of the encoder's patches in pixels."""
        return get_size(self.size).patch

    @property
    def quantity(self) -> Quantity:
        """What predictions are."""
        return Quantity.METRES if self.metric else self.target

    @property
    def metric(self) -> bool:
        """Whether predictions are metres."""
        return self.max_depth is not None


def check_input_size(input_size: int, patch: int) -> None:
    """Refuse an input size that is no positive multiple of the patch size, or larger than any memory."""
    if input_size > LARGEST_INPUT:
        raise ValueError(f"input size {input_size} is more than {LARGEST_INPUT}, for which no machine has the memory")
    if input_size < patch or input_size % patch:
        lower = max(patch, input_size // patch * patch)
        raise ValueError(
            f"input size {input_size} is not a multiple of {patch}; the nearest are {lower} and {lower + patch}"
        )


def check_shape(image: Tensor, patch: int) -> None:
    """Refuse a batch whose sides are no multiples of the patch size."""
    height, width = image.shape[-2:]
    if height % patch or width % patch:
        raise ValueError(f"image is {height} × {width}; both sides must be multiples of {patch}")


class RisingReLU(torch.autograd.Function):
    """ReLU whose gradient reaches a pixel at 0 if it asks for more.

    The affine-invariant loss does not care where 0 lies, so early in training whole regions may fall below it; with
    the plain gradient they stay there, all equally far.
    """

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return F.relu(raw)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (raw,) = ctx.saved_tensors
        return gradient.where((raw > 0) | (gradient < 0), 0.0)


class DepthAnything(nn.Module):
    """Encoder, decoder and head; see :func:`build`."""

    family = "depth_anything"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size = get_size(config.size)
        self.encoder: Encoder = DinoV3(size) if size.dinov3 else DinoV2(size)
        self.decoder = DPT(size, config.quantity.channels)
        bias = self.decoder.head3.bias
        assert bias is not None
        if config.quantity.relative:
            # The last layer's usual start is negative for half of all seeds, where ReLU passes no gradient.
            nn.init.ones_(bias)
        elif config.quantity is Quantity.NORMALS:
            # Every surface faces the viewer, roughly: far from length 0, where a direction means nothing.
            with torch.no_grad():
                bias.copy_(torch.arange(3) == 2)

    def forward(self, image: Tensor) -> Tensor:
        """Predict a batch.

        Args:
            image: (B, 3, H, W), ImageNet-normalised RGB, H and W multiples of the patch size.

        Returns:
            (B, H, W): relative disparity ≥ 0, or metres in (0, max_depth); or normals (B, 3, H, W) of length 1.
        """
        if serves(self, image, self.config.patch):
            check_shape(image, self.config.patch)
            network = packed_network(self, self.encoder, self.decoder, self.config.input_size)
            return self.activate(network(image))
        return self.forward_features(image)[0]

    def forward_features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the normed patch tokens of the last block: (B, patches, dim)."""
        check_shape(image, self.config.patch)
        tapped = self.encoder(image)
        raw = self.decoder(tapped, *(side // self.config.patch for side in image.shape[-2:]))
        return self.activate(raw), tapped[-1]

    def activate(self, raw: Tensor) -> Tensor:
        """Output activation of the head: ReLU, sigmoid × ``max_depth``, or division by the length."""
        if self.config.quantity is Quantity.NORMALS:
            return unit(raw)
        if self.config.max_depth is None:
            return RisingReLU.apply(raw) if self.training and torch.is_grad_enabled() else F.relu(raw)
        return torch.sigmoid(raw) * self.config.max_depth

    def __repr__(self) -> str:
        return described(self, self.config.size)

    @property
    def quantity(self) -> Quantity:
        """What predictions are."""
        return self.config.quantity

    def as_quantity(self, prediction: Tensor) -> Tensor:
        """What :meth:`forward` gives, as values of :attr:`quantity`.

        A relative network predicts nearness whatever it is trained on, so that its ReLU bounds the far side; where the
        quantity grows with distance the sign turns.
        """
        return -prediction if self.quantity.relative and self.quantity.sign < 0 else prediction

    def network_shape(self, height: int, width: int, input_size: int | None = None) -> tuple[int, int]:
        """Height and width the network sees; see :func:`dav2.families.depth_anything.preprocess.network_shape`."""
        return network_shape(height, width, input_size or self.config.input_size, self.config.patch)

    def set_activation_checkpointing(self, enable: bool = True) -> None:
        """Recompute encoder activations in the backward pass: less memory, about a third more time."""
        self.encoder.activation_checkpointing = enable

    def infer_image(self, rgb: NDArray[np.uint8], input_size: int | None = None) -> NDArray[np.float32]:
        """Depth of one image at its own resolution.

        Args:
            rgb: uint8 (H, W, 3), upright, sRGB.
            input_size: least short side the network sees; larger gives sharper maps. ``None`` is the native size.

        Returns:
            float32 (H, W): values of :attr:`quantity`: relative disparity ≥ 0 (larger = nearer), metres for a metric
            model, or the other relative spaces a model may be trained in; of normals (3, H, W).
        """
        return self.infer_images([rgb], input_size)[0]

    def infer_images(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[NDArray[np.float32]]:
        """As :meth:`infer_image` for several images; those of equal network shape go through as one batch."""
        input_size = self.config.input_size if input_size is None else input_size
        check_input_size(input_size, self.config.patch)
        parameter = next(self.parameters())
        # What a collective takes part in, as where weights are partitioned, is no graph.
        alone = not torch.distributed.is_initialized()
        network = partial(predict_there, self) if parameter.is_cuda and alone else self
        planes = [self._prepared(rgb, input_size, parameter.device) for rgb in images]
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, plane in enumerate(planes):
            groups[plane.shape].append(index)
        results: dict[int, Tensor] = {}
        for members in groups.values():
            batch = torch.stack([planes[i] for i in members]).to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                predictions = network(batch).float()
                for index, prediction in zip(members, predictions, strict=True):
                    results[index] = self.as_quantity(resize_prediction(prediction, images[index].shape[:2]))
        return [results[index].cpu().numpy() for index in range(len(images))]

    def _prepared(self, rgb: NDArray[np.uint8], input_size: int, device: torch.device) -> Tensor:
        """Input (3, h, w) of one image; a GPU resizes itself what is not too large to lie there in float32."""
        if device.type == "cuda" and rgb.size <= 3 * LARGE:
            return preprocess_there(rgb, input_size, self.config.patch, device)
        return torch.from_numpy(preprocess(rgb, input_size, self.config.patch))

    def infer_maps(
        self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None
    ) -> list[Maps[NDArray[np.float32]]]:
        """As :meth:`infer_images`, with what the values are."""
        return [Maps(self.quantity, values) for values in self.infer_images(images, input_size)]


def resize_prediction(prediction: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One prediction (h, w) at the resolution of its image, bilinear with aligned corners as published.

    Normals (3, h, w) are brought back to length 1 afterwards.
    """
    if tuple(prediction.shape[-2:]) == tuple(shape):
        return prediction
    if prediction.ndim == 3:
        return unit(F.interpolate(prediction[None], size=shape, mode="bilinear", align_corners=True)[0])
    return F.interpolate(prediction[None, None], size=shape, mode="bilinear", align_corners=True)[0, 0]


def build(size: str, max_depth: float | None = None, target: Quantity = Quantity.DISPARITY) -> DepthAnything:
    """A model with random weights.

    Args:
        size: a name in :data:`dav2.families.depth_anything.sizes.SIZES`.
        max_depth: metres at the far end of the range of a metric model; ``None`` builds another one.
        target: what that predicts.
    """
    metres = None if max_depth is None else float(max_depth)
    return DepthAnything(ModelConfig(size, metres, get_size(size).input_size, target))
