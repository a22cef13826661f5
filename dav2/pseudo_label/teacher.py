"""The teacher on its device: batches of equal shape in, disparity at the network's own resolution out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dav2 import machine
from dav2.families.depth_anything.sizes import PATCH, get_size
from dav2.families.depth_anything.weights import load_directory
from dav2.families.directory import weights_digest
from dav2.pseudo_label.receipts import LabelError, LabelOptions
from dav2.tf32 import allow_tf32

if TYPE_CHECKING:
    from dav2.families.depth_anything.model import DepthAnything

EMBEDDING_SIZE = 32
_PROJECTION_SEED = 20240613


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the teacher says of a batch, still on its way from the device; :meth:`wait` before reading.

    Attributes:
        disparity: float32 (B, H, W).
        flipped: the same from the mirrored photographs, mirrored back; ``None`` where it was not asked for.
        rescaled: the same from the photographs at another size, at the first one's resolution; or ``None``.
        embedding: float32 (B, 32), unit length: what the photographs show; or ``None``.
    """

    disparity: Tensor
    flipped: Tensor | None = None
    rescaled: Tensor | None = None
    embedding: Tensor | None = None
    event: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Wait until the values have come from the device."""
        if self.event is not None:
            self.event.synchronize()


class Teacher:
    """A model that labels.

    Args:
        model: a relative model; it is switched to evaluation and moved to ``device``.
        digest: sha256 of its weights, as :func:`dav2.families.directory.weights_digest` gives it.
        options: input size, precision, and which further passes are wanted.
        device: where it runs; ``None`` takes the first of CUDA, MPS and CPU that is there.

    Raises:
        LabelError: the model is metric; labels are relative disparity.
    """

    def __init__(
        self, model: DepthAnything, digest: str, options: LabelOptions, device: torch.device | str | None = None
    ) -> None:
        if model.config.metric:
            raise LabelError("the teacher is a metric model; pseudo-labels are relative disparity")
        self.device = machine.device(device)
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        if self.dtype == torch.float32:
            allow_tf32(False)
        self.model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        self.digest = digest
        self.options = options
        self._projection = _projection(get_size(model.config.size).dim).to(self.device)

    @classmethod
    def open(cls, directory: str, options: LabelOptions, device: str | None = None) -> Teacher:
        """Load a teacher from a model directory."""
        return cls(load_directory(directory), weights_digest(directory), options, device)

    def __call__(self, images: Tensor) -> Predictions:
        """Start labelling a batch; on a GPU the call returns before the result is there.

        Args:
            images: float32 (B, 3, H, W) on the host, in pinned memory for a GPU; ImageNet-normalised, H and W multiples
                of 14.
        """
        with torch.inference_mode():
            batch = images.to(self.device, non_blocking=True).to(self.dtype)
            prediction, features = self.model.forward_features(batch)
            results: dict[str, Any] = {"disparity": prediction.float()}
            if self.options.flip_agreement:
                results["flipped"] = self._predict(batch.flip(-1)).flip(-1)
            if self.options.scale_agreement:
                results["rescaled"] = self._at_other_size(batch)
            if self.options.embedding:
                mean = features.float().mean(1)
                results["embedding"] = F.normalize(F.normalize(mean, dim=-1) @ self._projection, dim=-1)
            return self._from_device(results)

    def _predict(self, batch: Tensor) -> Tensor:
        """By the way that labels are made, so that what is compared differs in nothing but the picture."""
        return self.model.forward_features(batch)[0].float()

    def _at_other_size(self, batch: Tensor) -> Tensor:
        """Prediction at about 3/4 of the size, enlarged to the size of ``batch``."""
        shape = tuple(max(PATCH, round(0.75 * side / PATCH) * PATCH) for side in batch.shape[-2:])
        small = F.interpolate(batch.float(), size=shape, mode="bilinear", antialias=True).to(self.dtype)
        prediction = self._predict(small)
        return F.interpolate(prediction[:, None], size=batch.shape[-2:], mode="bilinear", align_corners=True)[:, 0]

    def _from_device(self, results: dict[str, Any]) -> Predictions:
        """Copy to the host behind the computation, so that the next batch can be started before this one is read."""
        if self.device.type != "cuda":
            return Predictions(**{name: tensor.cpu() for name, tensor in results.items()})
        host = {}
        for name, tensor in results.items():
            host[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host[name].copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return Predictions(**host, event=event)


def _projection(width: int) -> Tensor:
    """Random projection (width, 32) that keeps angles roughly (Johnson–Lindenstrauss); the same on every machine."""
    random = np.random.Generator(np.random.PCG64(_PROJECTION_SEED))
    return torch.from_numpy(random.standard_normal((width, EMBEDDING_SIZE)).astype(np.float32))
