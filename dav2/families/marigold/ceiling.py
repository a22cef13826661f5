"""A codec made from the settings, and its ceiling: what the best model on top of it could reach."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin
from numpy.typing import NDArray
from torch import Tensor

from dav2 import layout
from dav2.data.feed.frame_table import Part
from dav2.data.feed.layers import LIGHT, light_range
from dav2.data.frame import Frame
from dav2.data.store.manifest import read_manifest
from dav2.data.store.shards import read_frame
from dav2.families.marigold import codec as codecs
from dav2.families.marigold.frames import MapData
from dav2.families.marigold.modalities import modality
from dav2.families.marigold.targets import normalised
from dav2.files import write_whole
from dav2.maps import Maps, Quantity
from dav2.params import AugmentParams, CodecParams, Params
from dav2.params.marigold import LAYERED
from dav2.scores.layer_protocols import LAYER_PROTOCOLS
from dav2.scores.layers import score_layers, split_channels
from dav2.scores.protocols import Protocol
from dav2.scores.scoring import score_frame

FILE = "ceiling.json"
MOST_FRAMES = 64
"""Of one data set, for its ceiling."""
PROTOCOL = Protocol("codec-ceiling", "native", min_depth=1e-5, floor=1e-3)
_BATCH = 16


def make_codec(params: Params, name: str, root: Path) -> list[dict[str, object]]:
    """Fit or take a codec of section ``codecs``, measure it, and keep it in ``artifacts/codecs/<name>``.

    Returns:
        A row for each data set: ``source``, ``frames``, ``psnr`` of photographs in dB, and of what went through the
        codec ``abs_rel`` and ``delta1`` of depth, with ``target_abs_rel`` of the same maps that did not and
        ``depth_mae`` in [-1, 1]; or the metrics of layers, as :func:`dav2.scores.layers.score_layers` names them.

    Raises:
        WeightsError: an autoencoder cannot be read.
        ManifestError: a data set has not been ingested.
        ValueError: there is nothing to fit to.
    """
    settings = params.codecs[name]
    codec = _made(params, settings, root)
    folder = layout.codec(root, name)
    codec.save_pretrained(str(folder), safe_serialization=True)
    rows = [_ceiling(codec, params, source, settings, root) for source in settings.sources]
    document = {"kind": settings.kind, "target": settings.target, "licence": settings.licence, "rows": rows}
    write_whole(folder / FILE, json.dumps(document, indent=1) + "\n")
    return rows


def _made(params: Params, settings: CodecParams, root: Path) -> ModelMixin:
    if settings.path is not None:
        return codecs.read_codec(root / settings.path)
    if settings.kind == "none":
        return codecs.PixelCodec()
    return codecs.fit_patches(_pictures(params, settings, root), settings.patch, settings.channels)


def _pictures(params: Params, settings: CodecParams, root: Path) -> Iterator[Tensor]:
    """Photographs and maps alike, as images (B, 3, H, W) in [-1, 1]."""
    parts = [Part(str(root / params.shards(source)), None, "train") for source in settings.sources]
    plain = AugmentParams(flip=0.0)
    data = MapData(
        parts,
        crop=settings.crop,
        batch=_BATCH,
        seed=params.seed,
        augment=plain,
        target=settings.target,
        max_depth=settings.max_depth,
    )
    for index in range(max(1, min(settings.frames, len(data)) // _BATCH)):
        batch = data.batch(index)
        yield batch["image"]
        target, known = batch["target"], batch["mask"]
        if data.modality.of_depth:
            target, known = target[:, None].expand(-1, 3, -1, -1), known[:, None]
        images, shown = target.unflatten(1, (-1, 3)).flatten(0, 1), known.flatten(0, 1).flatten(1).any(dim=1)
        if bool(shown.any()):
            yield images[shown]


def _ceiling(codec: ModelMixin, params: Params, source: str, settings: CodecParams, root: Path) -> dict[str, object]:
    """What maps and photographs of one data set lose; of its held-out frames where it has any."""
    shards = root / params.shards(source)
    table = read_manifest(shards)
    held_out = table[table["split"] == "val"]
    rows = (held_out if len(held_out) else table).to_dict("records")[:MOST_FRAMES]
    found = [measured for row in rows if (measured := _loss(codec, read_frame(shards, row), settings)) is not None]
    means = {name: float(np.mean([each[name] for each in found])) for name in (found[0] if found else ())}
    return {"source": source, "frames": len(found), **{name: round(value, 5) for name, value in means.items()}}


def _loss(codec: ModelMixin, frame: Frame, settings: CodecParams) -> dict[str, float] | None:
    """Scores of one frame; ``None`` where its depth, or its layers, say nothing."""
    if settings.target in LAYERED:
        return _layer_loss(codec, frame, settings.target)
    if frame.depth is None:
        return None
    side = codecs.factor(codec)
    height, width = (length // side * side for length in frame.depth.shape)
    depth, rgb = frame.depth[:height, :width], frame.rgb[:height, :width]
    mask = np.isfinite(depth) & (depth > 0) & (depth <= settings.max_depth)
    positive = np.where(mask, depth, 1)
    values = {"depth": positive, "disparity": 1 / positive, "log_depth": np.log(positive)}[settings.target]
    target = normalised(values.astype(np.float32), mask)
    if not target.mask.any():
        return None
    given = torch.from_numpy(target.values)[None]
    with torch.inference_mode():
        restored = codecs.decode_map(codec, codecs.encode_map(codec, given)).clamp(-1, 1)
    truth, quantity = torch.from_numpy(np.where(mask, depth, np.nan).astype(np.float32)), Quantity(settings.target)
    protocol = replace(PROTOCOL, max_depth=settings.max_depth)
    through = score_frame(Maps(quantity, restored[0]), truth, protocol).metrics
    without = score_frame(Maps(quantity, given[0]), truth, protocol).metrics
    if not through or not without:
        return None
    return {
        "abs_rel": through["abs_rel"],
        "delta1": through["delta1"],
        "target_abs_rel": without["abs_rel"],
        "depth_mae": float((restored - given).abs()[0][torch.from_numpy(target.mask)].mean()),
        "psnr": _photograph_loss(codec, rgb),
    }


def _layer_loss(codec: ModelMixin, frame: Frame, target: str) -> dict[str, float] | None:
    """Scores of the layers of one frame that went through the codec; ``None`` where it lacks one."""
    side, wanted = codecs.factor(codec), modality(target)
    if not set(wanted.layers) <= frame.layers.keys():
        return None
    height, width = (length // side * side for length in frame.rgb.shape[:2])
    truth = {q: np.atleast_3d(frame.layers[q])[:height, :width].transpose(2, 0, 1) for q in wanted.layers}
    light = np.float32(light_range([truth[q].transpose(1, 2, 0) for q in wanted.layers if q in LIGHT]))
    scaled = [np.minimum(truth[q] / light, 1) if q in LIGHT else truth[q] for q in wanted.layers]
    given = torch.from_numpy(np.nan_to_num(np.concatenate(scaled)))[None]
    with torch.inference_mode():
        latents = codecs.encode_images(codec, wanted.to_images(given))
        restored = wanted.from_images(codecs.decode_images(codec, latents))[0]
    tensors = {q: torch.from_numpy(np.ascontiguousarray(each)) for q, each in truth.items()}
    scored = score_layers(split_channels(wanted.layers, restored), tensors, LAYER_PROTOCOLS[f"{target}-plain"])
    return {**scored.metrics, "psnr": _photograph_loss(codec, frame.rgb[:height, :width])} if scored.metrics else None


def _photograph_loss(codec: ModelMixin, rgb: NDArray[np.uint8]) -> float:
    """PSNR in dB of a photograph that went through the codec."""
    image = torch.from_numpy(rgb.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        picture = codecs.decode(codec, codecs.encode(codec, image)).clamp(-1, 1)
    return -10 * math.log10(max(float((picture - image).square().mean()) / 4, 1e-12))
