"""What is measured and shown while a model trains: validation loss, DA-2K accuracy, pictures.

Every rank takes its share of the frames. With ZeRO-3 a forward pass needs all ranks, so each makes the same number of
passes, and what a rank sees twice for that reason counts once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.data.store.manifest import manifest_digest, read_manifest
from dav2.data.store.shards import read_frame
from dav2.documents import DataSet
from dav2.files import write_whole
from dav2.scores import da2k
from dav2.tf32 import allow_tf32
from dav2.training.ranks import Ranks
from dav2.training.recipes import Recipe
from dav2.training.task import Batch, Task

BATCH = 8
"""Validation frames per rank and pass."""
PICTURES = 4
"""Rows of a preview."""


class Measured(TypedDict):
    """What :meth:`Validator.measure` found: a loss of ``None`` is none that is finite, accuracies lie in [0, 1]."""

    measured_on: dict[str, DataSet]
    val_loss: NotRequired[float | None]
    da2k: NotRequired[float]
    da2k_pairs: NotRequired[int]
    da2k_kinds: NotRequired[dict[str, float]]


class Validator:
    """Measures a task on held-out frames and on DA-2K.

    Args:
        recipe: names the validation frames.
        frames: at most so many of them are used.
        da2k_shards: folder of the ingested DA-2K archive; without it that score is left out.
        ranks: share the work.
    """

    def __init__(self, recipe: Recipe, frames: int, da2k_shards: Path | None, ranks: Ranks) -> None:
        self.recipe = recipe
        self.ranks = ranks
        self.batches = self._fixed_batches(frames)
        self.da2k_shards = da2k_shards
        self.rows: list[dict[str, object]] = []
        if da2k_shards is not None and recipe.run.quantity.is_depth:
            self.rows = read_manifest(da2k_shards).to_dict("records")
        self.measured_on = self._data_sets()

    def _data_sets(self) -> dict[str, DataSet]:
        """Name and digest of what each score is measured on."""
        measured: dict[str, list[Path]] = {}
        if self.batches:
            measured["val_loss"] = [Path(part.shards) for part in self.recipe.validation]
        if self.rows and self.da2k_shards is not None:
            measured["da2k"] = [self.da2k_shards]
        found = {}
        for score, folders in measured.items():
            digests = [manifest_digest(folder) for folder in folders]
            digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
            found[score] = DataSet(name=", ".join(folder.name for folder in folders), digest=digest)
        return found

    def _fixed_batches(self, frames: int) -> list[Batch]:
        probe = self.recipe.validation_data(1, 0, 1)
        if probe is None:
            return []
        total = min(frames, len(probe))
        per_pass = min(BATCH, max(1, total // self.ranks.world)) * self.ranks.world
        data = probe if per_pass == 1 else self.recipe.validation_data(per_pass, self.ranks.rank, self.ranks.world)
        assert data is not None
        return [data.batch(index) for index in range(max(1, total // per_pass))]

    @torch.no_grad()
    def measure(self, task: Task) -> Measured:
        """``val_loss`` and, where there is DA-2K, ``da2k`` (accuracy in [0, 1]), ``da2k_pairs`` and ``da2k_kinds``.

        The last maps each kind of scene to its accuracy: what data teaches shows there before it shows in the mean.
        ``measured_on`` names the data behind ``val_loss`` and ``da2k``, with the digests of their manifests.
        """
        scores: Measured = {"measured_on": self.measured_on}
        task.eval()
        # Training may multiply in TF32; what is measured is not.
        training = allow_tf32(False)
        if self.batches:
            loss = self._loss(task)
            scores["val_loss"] = loss if math.isfinite(loss) else None
        if self.rows and task.predicts:
            counts = self._da2k(task)
            right, pairs = (sum(column) for column in zip(*counts.values(), strict=True))
            scores["da2k"], scores["da2k_pairs"] = right / pairs if pairs else 0.0, pairs
            scores["da2k_kinds"] = {kind: right / pairs for kind, (right, pairs) in counts.items() if pairs}
        allow_tf32(training)
        task.train()
        return scores

    def _loss(self, task: Task) -> float:
        losses = [task(**self._tensors(batch))["loss"].double() for batch in self.batches]
        total = torch.stack([torch.stack(losses).sum(), losses[0].new_tensor(len(losses))])
        total = self.ranks.sum(total)
        return float(total[0] / total[1])

    def _da2k(self, task: Task) -> dict[str, tuple[int, int]]:
        """Right pairs and all pairs of each kind of scene."""
        assert self.da2k_shards is not None
        kinds = sorted({str(row["scene"]) for row in self.rows})
        counts = torch.zeros(len(kinds), 2, dtype=torch.int64, device=self.ranks.device)
        share = [row for row in range(len(self.rows)) if row % self.ranks.world == self.ranks.rank]
        # Ranks pass through the network together: images of any shape go one by one then, as many as rank 0 has, and
        # what a rank repeats for that does not count. One rank on its own takes several at a time.
        chunk = BATCH if self.ranks.world == 1 else 1
        for first in range(0, -(-len(self.rows) // self.ranks.world), chunk):
            numbers = share[first : first + chunk]
            frames = [read_frame(self.da2k_shards, self.rows[number]) for number in numbers or share[:1] or [0]]
            maps = task.infer([frame.rgb for frame in frames], self.recipe.settings.crop)
            for number, frame, found in zip(numbers, frames, maps, strict=False):
                result, _ = da2k.score_image(frame.key, frame.extra, found.nearness(), *found.values.shape)
                kind = kinds.index(str(self.rows[number]["scene"]))
                counts[kind] += torch.tensor([result.right, len(result.pairs)], device=counts.device)
        counted = self.ranks.sum(counts).tolist()
        return {kind: (right, pairs) for kind, (right, pairs) in zip(kinds, counted, strict=True)}

    @torch.no_grad()
    def picture(self, task: Task, path: Path) -> None:
        """Write a preview of fixed frames: photograph | prediction | target, nearer is brighter."""
        if not self.batches:
            return
        task.eval()
        rows = task.preview(self._tensors(self.batches[0]), PICTURES)
        task.train()
        if self.ranks.first:
            write_whole(path, _png([np.hstack(row) for row in rows]))

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        return {name: value.to(self.ranks.device) for name, value in batch.items() if isinstance(value, Tensor)}


def _png(rows: Sequence[NDArray[np.uint8]]) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError("the preview could not be encoded as PNG")
    return data.tobytes()
