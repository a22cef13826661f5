"""A task is the module that DeepSpeed trains: a batch goes in, ``{"loss": …}`` and its terms come out.

The loop knows nothing of losses, the losses nothing of the loop. The network runs under ``torch.autocast``; what is
computed from its output (medians, gradients of residuals, logarithms) runs in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dav2.families.depth_anything.losses import feature_loss, relative_loss, silog_loss
from dav2.families.depth_anything.model import DepthAnything
from dav2.params import LossParams

Output = dict[str, Tensor]


class Task(nn.Module):
    """A model with its loss.

    Args:
        model: the network in training.
        loss: which terms, with what weights.
        precision: ``bf16`` runs the network under autocast, weights stay float32.
    """

    def __init__(self, model: DepthAnything, loss: LossParams, precision: str) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.mixed = precision == "bf16"
        self._network = model.forward_features

    def compile_network(self, dynamic: bool) -> None:
        """Compile the network; ``dynamic`` where batches differ in shape."""
        self._network = torch.compile(self.model.forward_features, dynamic=dynamic)

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction (B, H, W) and last-layer patch features (B, N, C) of the network."""
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.mixed):
            prediction, features = self._network(image)
        return prediction.float(), features

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:
        """Loss of one batch.

        Args:
            image: float32 (B, 3, H, W), ImageNet-normalised.
            target: float32 (B, H, W), the space that the recipe asks the loader for.
            mask: bool (B, H, W), known pixels.
            region: uint8 (B, H, W), CutMix regions.

        Returns:
            ``loss``, a scalar; its terms, scalars without gradient; ``per_image`` (B,) and ``counted``, bool (B,).
        """
        raise TypeError(f"{type(self).__name__} does not say what its loss is")

    def _output(self, terms: dict[str, tuple[float, Tensor]], counted: Tensor) -> Output:
        per_image = torch.stack([weight * value for weight, value in terms.values()]).sum(dim=0)
        named = {name: value.detach().mean() for name, (_, value) in terms.items()}
        skipped = (~counted).float().mean()
        per_image = per_image.where(counted, 0.0)
        return {"loss": per_image.mean(), **named, "skipped": skipped, "per_image": per_image.detach()}


class RelativeTask(Task):
    """Affine-invariant disparity: ssi + gradient matching + feature alignment (arXiv 2406.09414, section 5).

    Args:
        reference: frozen encoder for feature alignment; kept out of the checkpoint and of DeepSpeed's hands.
    """

    def __init__(
        self, model: DepthAnything, loss: LossParams, precision: str, reference: nn.Module | None = None
    ) -> None:
        super().__init__(model, loss, precision)
        self._reference: tuple[nn.Module, ...] = ()
        self.projection: nn.Module = nn.Identity()
        if reference is not None:
            reference.requires_grad_(False).eval()
            self._reference = (reference,)
            own, theirs = (encoder.get_parameter("pos_embed").shape[-1] for encoder in (model.encoder, reference))
            if own != theirs:
                self.projection = nn.Linear(own, theirs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # The reference is no submodule, but it has to follow the task to its device.
        for reference in self._reference:
            reference._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:
        prediction, features = self.predict(image)
        loss = self.loss
        relative = relative_loss(
            prediction,
            nearness(target, mask, loss.target),
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


class MetricTask(Task):
    """Depth in metres: SiLog on pixels whose depth the model can express."""

    def forward(self, image: Tensor, target: Tensor, mask: Tensor, region: Tensor) -> Output:
        prediction, _ = self.predict(image)
        loss = silog_loss(prediction, target, mask, self.loss.silog_lambda)
        return self._output({"silog": (1.0, loss)}, mask.flatten(1).any(dim=1))


def nearness(target: Tensor, mask: Tensor, space: str) -> Tensor:
    """The loader's target as a map in which larger is nearer, whatever space the loss compares in.

    ``disparity`` stays as it is; ``log_depth`` becomes ``-ln depth`` and ``depth`` becomes ``-depth``, so that a model
    trained in any space orders pixels alike and is scored, labelled from and shown alike. The loss removes scale and
    shift, so the sign is all that matters.

    Args:
        target: (B, H, W): disparity, or depth in metres for the other two spaces.
        mask: bool (B, H, W).
        space: ``disparity``, ``log_depth`` or ``depth``.
    """
    if space == "disparity":
        return target
    depth = target.where(mask, 1.0)
    return -depth.log() if space == "log_depth" else -depth
