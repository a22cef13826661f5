"""Depth Anything's tasks: relative depth by the affine-invariant losses, metres by SiLog, normals by their angle.

The network runs under ``torch.autocast``; what is computed from its output (medians, gradients of residuals,
logarithms) runs in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dav2.data.feed.targets import MEAN, STD
from dav2.families.depth_anything.counting import count_gflops
from dav2.families.depth_anything.encoder import Encoder
from dav2.families.depth_anything.losses import angular_loss, feature_loss, relative_loss, silog_loss
from dav2.families.depth_anything.model import DepthAnything
from dav2.families.depth_anything.weights import assign, empty_model
from dav2.maps import Maps
from dav2.params import LossParams
from dav2.pictures import coloured, leaning
from dav2.training.compiling import How
from dav2.training.task import Output, Task

SMALL = 768
"""Width of the encoder up to which the whole network is worth compiling for training."""


class DepthTask(Task):
    """A model with its loss.

    Args:
        model: the network in training.
        loss: which terms, with what weights.
        precision: ``bf16`` runs the network under autocast, weights stay float32.
    """

    model: DepthAnything

    def __init__(self, model: DepthAnything, loss: LossParams, precision: str) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.mixed = precision == "bf16"
        self._network = model.forward_features

    @property
    def suits(self) -> How:  # type: ignore[override]
        return "whole" if self.model.encoder.dim <= SMALL else "blocks"

    def compile_network(self, how: How, dynamic: bool) -> None:
        if how == "whole":
            self._network = torch.compile(self.model.forward_features, dynamic=dynamic)
        elif how == "blocks":
            self.model.encoder.compile_blocks(dynamic)

    def gflops(self, height: int, width: int) -> float:
        return count_gflops(self.model.config.size, height, width)

    def save_memory(self) -> None:
        self.model.set_activation_checkpointing()

    def part_of(self, name: str, parameter: nn.Parameter) -> str:
        if not name.startswith("model.encoder."):
            return "decoder"
        return "matrices" if parameter.ndim == 2 and ".blocks." in name else "encoder"

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction (B, H, W), or (B, 3, H, W), and last-layer patch features (B, N, C) of the network."""
        # What is compiled is so for training's shapes and mode; evaluation would compile it anew for each of its own.
        network = self._network if self.training else self.model.forward_features
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
            prediction, features = network(image)
        return prediction.float(), features

    def infer(self, images: Sequence[NDArray[np.uint8]], input_size: int) -> list[Maps[NDArray[np.float32]]]:
        return self.model.infer_maps(images, input_size)

    def rebuilt(self, state: dict[str, Tensor]) -> DepthAnything:
        model = empty_model(self.model.config)
        assign(model, state, "gathered weights")
        return model

    def preview(self, batch: Mapping[str, Tensor], rows: int) -> list[list[NDArray[np.uint8]]]:
        image, target, mask = (batch[name][:rows] for name in ("image", "target", "mask"))
        prediction, _ = self.predict(image)
        columns = (_photographs(image), self._shown(prediction), self._shown(target, mask))
        return [list(row) for row in zip(*columns, strict=True)]

    def _shown(self, values: Tensor, mask: Tensor | None = None) -> list[NDArray[np.uint8]]:
        """Pictures of predictions, or of targets that are known where ``mask`` says so."""
        sign = -1 if self.model.config.metric else 1  # what is trained on is nearness, but for metres
        known = sign * values if mask is None else (sign * values).masked_fill(~mask, torch.nan)
        return [_stretched(each) for each in known.cpu().numpy()]

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:  # type: ignore[override]
        """Loss of one batch.

        Args:
            image: float32 (B, 3, H, W), ImageNet-normalised.
            target: float32 (B, H, W), the space that the family asks the loader for; normals (B, 3, H, W).
            mask: bool (B, H, W), known pixels; of normals (B, 1, H, W).
            region: uint8 (B, H, W), CutMix regions.

        Returns:
            ``loss``, a scalar; its terms, scalars without gradient; ``per_image`` (B,).
        """
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def _output(self, terms: dict[str, tuple[float, Tensor]], counted: Tensor) -> Output:
        per_image = torch.stack([weight * value for weight, value in terms.values()]).sum(dim=0)
        named = {name: value.detach().mean() for name, (_, value) in terms.items()}
        skipped = (~counted).float().mean()
        per_image = per_image.where(counted, 0.0)
        return {"loss": per_image.mean(), **named, "skipped": skipped, "per_image": per_image.detach()}


def _photographs(image: Tensor) -> list[NDArray[np.uint8]]:
    """Images (B, 3, H, W) as the network sees them as uint8 (H, W, 3) each."""
    pixels = image.permute(0, 2, 3, 1).cpu().numpy() * np.array(STD) + np.array(MEAN)
    return list((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def _stretched(nearness: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Picture of one map, stretched between its 2nd and 98th percentile."""
    known = nearness[np.isfinite(nearness)]
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    return coloured(nearness, float(low), float(high))


class RelativeTask(DepthTask):
    """Affine-invariant nearness, in whatever space the targets are (arXiv 2406.09414, section 5).

    The loss is ssi + gradient matching + feature alignment.

    Args:
        reference: frozen encoder for feature alignment; kept out of the checkpoint and of DeepSpeed's hands.
    """

    def __init__(
        self, model: DepthAnything, loss: LossParams, precision: str, reference: Encoder | None = None
    ) -> None:
        super().__init__(model, loss, precision)
        self._reference: tuple[Encoder, ...] = ()
        self.projection: nn.Module = nn.Identity()
        if reference is not None:
            reference.requires_grad_(False).eval()
            self._reference = (reference,)
            if model.encoder.dim != reference.dim:
                self.projection = nn.Linear(model.encoder.dim, reference.dim)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The reference is no submodule, but it has to follow the task to its device.
        for reference in self._reference:
            reference._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:  # type: ignore[override]
        prediction, features = self.predict(image)
        loss = self.loss
        relative = relative_loss(
            prediction,
            target,
            mask,
            region,
            alignment=loss.alignment,
            normalisation=loss.normalisation,
            trim=loss.trim,
            scales=loss.gradient_scales,
        )
        terms = {"ssi": (loss.ssi, relative.ssi), "gradient": (loss.gradient, relative.gradient)}
        if self._reference and loss.feature > 0:
            with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
                wanted = self._reference[0](image)[-1]
            terms["feature"] = (
                loss.feature,
                feature_loss(self.projection(features.float()), wanted, loss.feature_margin),
            )
        return self._output(terms, relative.counted)


class MetricTask(DepthTask):
    """Depth in metres: SiLog on pixels whose depth the model can express."""

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:  # type: ignore[override]
        prediction, _ = self.predict(image)
        loss = silog_loss(prediction, target, mask, self.loss.silog_lambda)
        return self._output({"silog": (1.0, loss)}, mask.flatten(1).any(dim=1))


class NormalsTask(DepthTask):
    """Surface normals, by the angle to the true ones wherever these are known."""

    def _shown(self, values: Tensor, mask: Tensor | None = None) -> list[NDArray[np.uint8]]:
        known = values if mask is None else values.masked_fill(~mask, torch.nan)
        return [leaning(each) for each in known.permute(0, 2, 3, 1).cpu().numpy()]

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:  # type: ignore[override]
        prediction, _ = self.predict(image)
        known = mask[:, 0]
        loss = angular_loss(prediction, target, known, self.loss.trim)
        return self._output({"angle": (1.0, loss)}, known.flatten(1).any(dim=1))
