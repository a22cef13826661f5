"""Latents kept on disk: photographs and maps of several augmented views, encoded once instead of at every step.

A frame has as many views as the settings say; in epoch e it is seen as view e modulo their number, whether it is
encoded on the fly or read from here, so that both give the same loss. What is kept belongs to its data, its transform
and its codec: a digest of all three stands beside it, and a run for which any of them differs refuses it.

Shards are safetensors: ``image`` and ``target`` float32 (n, C, h, w), ``cells`` bool as uint8 (n, h, w), row after row
of the frames of one view after those of the view before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dav2 import layout
from dav2.data.feed.frame_table import FrameTable, Part
from dav2.data.feed.sampler import FrameOrder
from dav2.data.store.manifest import manifest_digest
from dav2.data.text import decode_json
from dav2.failures import reason
from dav2.families.directory import WeightsError
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.frames import MapData
from dav2.families.marigold.targets import latent_mask
from dav2.files import remove_unfinished, write_whole, written_whole
from dav2.params import LatentsParams, MarigoldParams, Params
from dav2.params.base import LATENTS

if TYPE_CHECKING:
    from diffusers import ModelMixin

    from dav2.training.recipes import Recipe

INDEX = "latents.json"
ROWS = 1024
"""Views in a shard."""
_BATCH = 16


def latents_key(settings: LatentsParams, parts: Sequence[Part], codec: str, seed: int) -> str:
    """SHA-256 of what decides latents: data, transform and codec."""
    decisive = {
        "settings": settings.model_dump(mode="json", exclude={"codec"}),
        "data": [manifest_digest(part.shards) for part in parts],
        "codec": codec,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def make_latents(params: Params, name: str, root: Path, codec_digest: str) -> dict[str, object]:
    """Encode all views of section ``latents``' entry ``name`` into ``artifacts/latents/<name>``.

    Returns:
        ``frames``, ``views``, ``megabytes`` and ``key``.

    Raises:
        WeightsError: the codec cannot be read.
        ManifestError: a data set has not been ingested.
    """
    settings, folder = params.latents[name], layout.latents(root, name)
    parts = [Part(str(root / params.shards(source)), None, "train") for source in settings.sources]
    codec = codecs.read_codec(layout.codec(root, settings.codec))
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    (folder / INDEX).unlink(missing_ok=True)
    data = MapData(
        parts, crop=settings.crop, batch=_BATCH, seed=params.seed, augment=settings.augment,
        target=settings.target, max_depth=settings.max_depth, views=settings.views,
    )  # fmt: skip
    total, written = len(data) * settings.views, 0
    places = torch.empty(total, dtype=torch.int64)
    waiting: list[tuple[Tensor, ...]] = []
    batches: Iterator[Any] = data.iterate()
    for first in range(0, total, _BATCH):
        batch = next(batches)
        rows = min(_BATCH, total - first)
        places[first : first + rows] = torch.tensor([_place(data, first + row) for row in range(rows)])
        waiting.append(tuple(each[:rows] for each in _encoded(codec, batch)))
        if len(waiting) * _BATCH >= ROWS or first + rows == total:
            _write(folder / _shard(written), waiting)
            written, waiting = written + 1, []
    with written_whole(folder / "places.safetensors") as temporary:
        save_file({"places": places.argsort()}, temporary)
    known = {
        "key": latents_key(settings, parts, codec_digest, params.seed),
        "frames": len(data), "views": settings.views, "shards": written,
    }  # fmt: skip
    write_whole(folder / INDEX, json.dumps(known, indent=1) + "\n")
    size = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    return {**known, "megabytes": round(size / 2**20, 1)}


def _place(data: MapData, position: int) -> int:
    """View and frame of a position, as one number."""
    return position // len(data) * len(data) + data.order.frame(position)


def _encoded(codec: ModelMixin, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode():
        cells = latent_mask(batch["mask"], codecs.factor(codec))
        return codecs.encode(codec, batch["image"]), codecs.encode_map(codec, batch["target"]), cells


def _write(file: Path, batches: list[tuple[Tensor, ...]]) -> None:
    image, target, cells = (torch.cat(each) for each in zip(*batches, strict=True))
    with written_whole(file) as temporary:
        save_file({"image": image, "target": target, "cells": cells.to(torch.uint8)}, temporary)


def _shard(number: int) -> str:
    return f"latents-{number:06d}.safetensors"


class LatentData:
    """Batches of latents, in the order and of the views in which :class:`MapData` with ``views`` gives photographs.

    A batch holds ``seen`` and ``latent`` float32 (b, C, h, w), ``mask`` bool (b, H, W) that is true where a whole cell
    counts, ``position`` and ``keys``; ``image`` and ``target`` are empty.

    Args:
        folder: what :func:`make_latents` wrote.
        parts, batch, seed, rank, world: as for :class:`dav2.data.feed.loader.TrainingData`.
        key: of :func:`latents_key`, what the run would encode itself.
        factor: pixels of a cell along one side.

    Raises:
        WeightsError: there are no such latents, or they were made of other data, with another transform or codec.
    """

    def __init__(
        self, folder: Path, parts: Sequence[Part], batch: int, seed: int, key: str, factor: int, rank: int, world: int
    ) -> None:
        cure = f"'dvc repro latents@{folder.name}' makes them"
        try:
            known = decode_json((folder / INDEX).read_bytes(), str(folder / INDEX))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder} holds no latents ({reason(error)}); {cure}") from None
        if known["key"] != key:
            raise WeightsError(f"{folder}: latents of other data, another transform or another codec; {cure} anew")
        self.frames = FrameTable(parts)
        self.order = FrameOrder(self.frames.shard_sizes, seed)
        self.views, self.factor = int(known["views"]), factor
        self.global_batch, self.rank, self.world = batch, rank, world
        self._places = _opened(folder / "places.safetensors").get_tensor("places")
        self._shards = [_opened(folder / _shard(number)) for number in range(int(known["shards"]))]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def repeated(self) -> int:
        """Frames left out because another part holds the same picture."""
        return self.frames.repeated

    def iterate(self, start: int = 0) -> Generator[dict[str, object]]:
        """Batches ``start``, ``start`` + 1, … without end."""
        while True:
            yield self.batch(start)
            start += 1

    def batch(self, index: int) -> dict[str, Any]:
        """Batch ``index`` ≥ 0 of this rank."""
        share = self.global_batch // self.world
        first = index * self.global_batch + self.rank * share
        numbers = [self.order.frame(position) for position in range(first, first + share)]
        views = [position // len(self) % self.views for position in range(first, first + share)]
        rows = [self._row(view, number) for view, number in zip(views, numbers, strict=True)]
        image, target, cells = (torch.cat(each) for each in zip(*rows, strict=True))
        sides = partial(torch.repeat_interleave, repeats=self.factor)
        return {
            "image": torch.empty(share, 3, 0, 0),
            "target": torch.empty(share, 0, 0),
            "mask": sides(sides(cells.bool(), dim=1), dim=2),
            "seen": image,
            "latent": target,
            "position": torch.arange(first, first + share),
            "keys": [self.frames.key(number) for number in numbers],
        }

    def _row(self, view: int, number: int) -> tuple[Tensor, ...]:
        shard, row = divmod(int(self._places[view * len(self) + number]), ROWS)
        return tuple(self._shards[shard].get_slice(name)[row : row + 1] for name in ("image", "target", "cells"))


def kept_latents(
    recipe: Recipe, settings: MarigoldParams, codec_digest: str, batch: int, rank: int, world: int
) -> LatentData:
    """What a run learns from that names latents.

    Raises:
        WeightsError: see :class:`LatentData`.
    """
    wanted = LatentsParams(**{name: getattr(settings, name) for name in LatentsParams.model_fields})
    factor = codecs.factor(codecs.read_codec(layout.codec(recipe.root, settings.codec)))
    return LatentData(
        layout.latents(recipe.root, settings.latents.removeprefix(LATENTS)), recipe.parts, batch, recipe.seed,
        latents_key(wanted, recipe.parts, codec_digest, recipe.seed), factor, rank, world,
    )  # fmt: skip


def _opened(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except Exception as error:
        # OSError, and what the library raises for files that are cut short.
        raise WeightsError(f"{file} cannot be read: {reason(error)}; make the latents again") from None
