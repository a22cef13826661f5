"""The teacher on its device: batches of equal shape in, disparity or normals at the network's own resolution out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dav2 import families, machine
from dav2.data.store.manifest import read_table
from dav2.failures import out_of_memory
from dav2.families.directory import weights_digest
from dav2.families.loading import family_of, load_directory
from dav2.families.teaching import Teaching
from dav2.families.vectors import unit
from dav2.gpu_errors import memory_note
from dav2.imports import code_digest
from dav2.maps import Maps, Quantity
from dav2.pseudo_label import columns_there
from dav2.pseudo_label.receipts import LabelError, LabelOptions
from dav2.tf32 import allow_tf32

EMBEDDING_SIZE = 32
_PROJECTION_SEED = 20240613


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the teacher says of a batch, still on its way from the device; :meth:`wait` before reading.

    Attributes:
        disparity: float32 (B, H, W); normals (B, 3, H, W), where the teacher predicts those.
        flipped: the same from the mirrored photographs, mirrored back; ``None`` where it was not asked for.
        rescaled: the same from the photographs at another size, at the first one's resolution; or ``None``.
        embedding: float32 (B, 32), unit length: what the photographs show; or ``None``.
        columns: float64 (B,) by name, where the device has measured the labels; ``flipped`` and ``rescaled`` then stay
            there.
    """

    disparity: Tensor
    flipped: Tensor | None = None
    rescaled: Tensor | None = None
    embedding: Tensor | None = None
    columns: Mapping[str, Tensor] | None = None
    event: torch.cuda.Event | None = None

    def wait(self) -> None:
        """Wait until the values have come from the device."""
        if self.event is not None:
            self.event.synchronize()

    def joined(self, other: Predictions) -> Predictions:
        """Those of one batch and the next as those of both together, once both have come."""
        self.wait()
        other.wait()

        def both(one: Tensor | None, two: Tensor | None) -> Tensor | None:
            return None if one is None or two is None else torch.cat([one, two])

        columns = None
        if self.columns is not None and other.columns is not None:
            columns = {name: torch.cat([own, other.columns[name]]) for name, own in self.columns.items()}
        return Predictions(
            torch.cat([self.disparity, other.disparity]),
            both(self.flipped, other.flipped),
            both(self.rescaled, other.rescaled),
            both(self.embedding, other.embedding),
            columns,
        )


class Teacher:
    """A model that labels.

    Attributes:
        of_normals: whether labels are normals instead of disparity.
        measures: whether the device measures the labels too; on a processor, and of normals, threads do, beside the
            network.
        halved: how often a batch did not fit the memory and was taken in halves.

    Args:
        teaching: what predicts, of whatever family, on its device.
        digest: sha256 of its weights, as :func:`dav2.families.directory.weights_digest` gives it.
        options: input size, precision, and which further passes are wanted.

    Raises:
        LabelError: it says neither how far things are nor which way they face, or has no features to make an embedding
            of.
    """

    def __init__(self, teaching: Teaching, digest: str, options: LabelOptions) -> None:
        self.of_normals = teaching.quantity is Quantity.NORMALS
        if not (teaching.quantity.is_depth or self.of_normals):
            raise LabelError(
                f"the teacher predicts {teaching.quantity.unit}; labels say how far things are, or are normals"
            )
        if options.embedding and not teaching.features:
            raise LabelError("this teacher has no features to make an embedding of; set pseudo_label.embedding: false")
        if not teaching.sees and (options.flip_agreement or options.scale_agreement):
            raise LabelError(
                "finished maps have none of a mirrored or smaller photograph; set pseudo_label.flip_agreement and "
                "scale_agreement: false"
            )
        if options.precision == "fp32":
            allow_tf32(False)
        self.teaching, self.device = teaching, teaching.device
        self.measures = teaching.device.type == "cuda" and not self.of_normals
        self.halved = 0
        self.digest = digest
        self.options = options
        self._projection = _projection(teaching.features).to(self.device) if options.embedding else None

    @classmethod
    def open(cls, directory: str, options: LabelOptions, device: str | None = None) -> Teacher:
        """Load a teacher from a model directory of any family."""
        folder = Path(directory)
        family = families.get(family_of(folder))
        teaching = family.teaching(load_directory(folder), options.precision, machine.device(device))
        return cls(teaching, weights_digest(folder), options)

    def __call__(self, images: Tensor, keys: Sequence[str]) -> Predictions:
        """Start labelling a batch; on a GPU the call returns before the result is there.

        A batch that does not fit the memory is halved, and halved again, which is said once.

        Args:
            keys: names of the photographs.
            images: float32 (B, 3, H, W) on the host, in pinned memory for a GPU; as the teacher prepared them.
        """
        try:
            return self._started(images, keys)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(keys) == 1:
                raise LabelError(f"{keys[0]}: does not fit the memory of {self.device}{memory_note()}") from error
            half = len(keys) // 2
        # Outside of the handler, whose traceback keeps the tensors of the attempt.
        if not self.halved:
            said = f"{len(keys)} photographs at once do not fit the memory of {self.device}; it goes on with {half}"
            print(said, file=sys.stderr)
        self.halved += 1
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return self(images[:half], keys[:half]).joined(self(images[half:], keys[half:]))

    def _started(self, images: Tensor, keys: Sequence[str]) -> Predictions:
        with torch.inference_mode():
            batch = images.to(self.device, non_blocking=True)
            prediction, features = self.teaching.predict(batch, keys)
            results: dict[str, Tensor] = {"disparity": self._nearness(prediction)}
            if self.options.flip_agreement:
                results["flipped"] = self._mirrored(self._predict(batch.flip(-1), keys))
            if self.options.scale_agreement:
                results["rescaled"] = self._at_other_size(batch, keys)
            if self._projection is not None and features is not None:
                results["embedding"] = F.normalize(F.normalize(features, dim=-1) @ self._projection, dim=-1)
            columns = self._columns(batch, results) if self.measures else None
            return self._from_device(results, columns)

    def _columns(self, batch: Tensor, results: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the host would measure of the labels; takes what only that needs out of ``results``."""
        disparity = results["disparity"]
        columns = {
            "range": columns_there.relative_range(disparity),
            "saturated": columns_there.saturated_share(disparity, self.options.bits),
            "sharpness": columns_there.edge_sharpness(disparity, batch.mean(1)),
        }
        for name, column in (("flipped", "flip_agreement"), ("rescaled", "scale_agreement")):
            if name in results:
                columns[column] = columns_there.agreement(disparity, results.pop(name))
        return columns

    def _predict(self, batch: Tensor, keys: Sequence[str]) -> Tensor:
        """By the way that labels are made, so that what is compared differs in nothing but the picture."""
        return self._nearness(self.teaching.predict(batch, keys)[0])

    def _nearness(self, prediction: Tensor) -> Tensor:
        """What is stored: normals as they are, else what is larger where nearer.

        That is disparity, of metres too; of relative depth, by how much it is nearer.
        """
        if self.of_normals:
            return prediction
        near = Maps(self.teaching.quantity, prediction).nearness()
        far = self.teaching.quantity in (Quantity.DEPTH, Quantity.LOG_DEPTH)
        return near - near.amin(dim=(-2, -1), keepdim=True) if far else near

    def _mirrored(self, prediction: Tensor) -> Tensor:
        """Mirrored back; of normals what pointed to the right points to the left then."""
        back = prediction.flip(-1)
        if self.of_normals:
            back[:, 0].neg_()
        return back

    def _at_other_size(self, batch: Tensor, keys: Sequence[str]) -> Tensor:
        """Prediction at about 3/4 of the size, enlarged to the size of ``batch``."""
        step = self.teaching.multiple
        shape = tuple(max(step, round(0.75 * side / step) * step) for side in batch.shape[-2:])
        small = F.interpolate(batch, size=shape, mode="bilinear", antialias=True)
        prediction = self._predict(small, keys)
        if self.of_normals:
            return unit(F.interpolate(prediction, size=batch.shape[-2:], mode="bilinear", align_corners=True))
        return F.interpolate(prediction[:, None], size=batch.shape[-2:], mode="bilinear", align_corners=True)[:, 0]

    def _from_device(self, results: dict[str, Tensor], columns: dict[str, Tensor] | None) -> Predictions:
        """Copy to the host behind the computation, so that the next batch can be started before this one is read."""
        if self.device.type != "cuda":
            there = {name: tensor.cpu() for name, tensor in results.items()}
            return Predictions(**there, columns=columns, event=None)
        host = {name: _to_host(tensor) for name, tensor in results.items()}
        if columns is not None:
            columns = {name: _to_host(tensor) for name, tensor in columns.items()}
        event = torch.cuda.Event()
        event.record()
        return Predictions(**host, columns=columns, event=event)


def _to_host(tensor: Tensor) -> Tensor:
    """Pinned memory that the values are on their way to."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def unlabelled(directory: str, shards: Sequence[str]) -> list[str]:
    """Photographs of the manifests in ``shards`` that the teacher in ``directory`` has no label for."""
    folder = Path(directory)
    teaching = families.get(family_of(folder)).teaching(load_directory(folder), "fp32", torch.device("cpu"))
    return [key for each in shards for key in teaching.lacking(read_table(each, ["key"])["key"].to_pylist())]


def label_code(teacher: Path | str) -> str:
    """Digest of the code that decides the bytes of a label by the model directory ``teacher``, comments aside."""
    family = families.get(family_of(Path(teacher)))
    return code_digest(["dav2.pseudo_label.pipeline", type(family).__module__])


def _projection(width: int) -> Tensor:
    """Random projection (width, 32) that keeps angles roughly (Johnson–Lindenstrauss); the same on every machine."""
    random = np.random.Generator(np.random.PCG64(_PROJECTION_SEED))
    return torch.from_numpy(random.standard_normal((width, EMBEDDING_SIZE)).astype(np.float32))
