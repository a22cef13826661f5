"""The last part of a training batch, on the device that trains: colours, blur, CutMix of pixels, normalisation.

A loader that leaves these to the device sends one byte a channel instead of four, and spends its cores on decoding.
The arithmetic is that of :mod:`dav2.data.feed.transforms` to the last bit: OpenCV converts colours by integer tables
one way and by fused float32 products the other way, and blurs bytes with weights in 256ths, their rounding errors
carried on. Only where a row is no whole number of vector registers (AVX2: 32 pixels) it rounds the last few pixels
otherwise, by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2.data.feed.targets import MEAN, STD
from dav2.data.feed.transforms import Colour, colour_tables

RAW = ("pixels", "colours", "partners")
"""What a batch holds instead of ``image`` until it is finished."""
AT_ONCE = 8
"""Pictures whose colours are changed together; each takes about thirty times its bytes meanwhile."""


def unfinished(pictures: Sequence[tuple[NDArray[np.uint8], Colour]], partners: Sequence[int]) -> dict[str, object]:
    """What :func:`finished` makes the images of a batch from.

    Args:
        pictures: uint8 (H, W, 3) and what is still to be done to them; first those of the batch, in its order.
        partners: for each image of the batch the row of the picture that is cut into it, or -1.
    """
    pixels = torch.from_numpy(np.stack([rgb for rgb, _ in pictures]))
    return {"pixels": pixels, "colours": [colour for _, colour in pictures], "partners": list(partners)}


def finished(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with ``image`` float32 (b, 3, H, W), ImageNet-normalised, where its ``pixels`` lie.

    Args:
        batch: from a loader with ``raw``: ``pixels`` uint8 (m, H, W, 3), ``colours`` (m), ``partners`` (b), and
            ``region`` uint8 (b, H, W), on one device.
    """
    pixels, colours, partners = (batch[name] for name in RAW)
    done = recoloured(pixels, colours)
    own = done[: len(partners)]
    mixed = [row for row, partner in enumerate(partners) if partner >= 0]
    if mixed:
        inside = batch["region"][mixed].bool()[..., None]
        own = own.clone()
        own[mixed] = torch.where(inside, done[[partners[row] for row in mixed]], done[mixed])
    rest = {name: value for name, value in batch.items() if name not in RAW}
    return {"image": normalise(own), **rest}


def normalise(pixels: Tensor) -> Tensor:
    """float32 (b, 3, H, W) of uint8 (b, H, W, 3): (value / 255 − mean) / std of ImageNet."""
    std = np.asarray(STD, np.float32)
    scale, offset = (
        torch.from_numpy(each).to(pixels.device).view(3, 1, 1)
        for each in (1 / (255 * std), np.asarray(MEAN, np.float32) / std)
    )
    # Two steps and not one: a fused product rounds once, and the host's rounds twice.
    return pixels.permute(0, 3, 1, 2).contiguous().float().mul_(scale).sub_(offset)


def recoloured(pixels: Tensor, colours: Sequence[Colour]) -> Tensor:
    """:func:`dav2.data.feed.transforms.recolour` of each picture: uint8 (m, H, W, 3)."""
    done = pixels.clone()
    jittered = [row for row, colour in enumerate(colours) if colour.jittered]
    for first in range(0, len(jittered), AT_ONCE):
        rows = jittered[first : first + AT_ONCE]
        done[rows] = _jittered(done[rows], [colours[row] for row in rows])
    blurred = [row for row, colour in enumerate(colours) if colour.sigma]
    for first in range(0, len(blurred), AT_ONCE):
        rows = blurred[first : first + AT_ONCE]
        done[rows] = _blurred(done[rows], [colours[row].sigma for row in rows])
    return done


def _jittered(pixels: Tensor, colours: Sequence[Colour]) -> Tensor:
    height, width = pixels.shape[1:3]
    means = pixels.sum(dim=(1, 2), dtype=torch.int64).cpu().numpy() / (height * width)
    found = [colour_tables(mean, colour) for mean, colour in zip(means, colours, strict=True)]
    levels, hues, saturations = (
        torch.from_numpy(np.stack(each)).to(pixels.device) for each in zip(*found, strict=True)
    )
    hue, saturation, value = _to_hsv(_looked_up(levels, pixels))
    return _to_rgb(_looked_up(hues, hue), _looked_up(saturations, saturation), value)


def _looked_up(tables: Tensor, values: Tensor) -> Tensor:
    """Each picture's values through its own table (m, 256)."""
    flat = values.reshape(values.shape[0], -1)
    return tables.gather(1, flat.long()).reshape(values.shape)


def _to_hsv(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's hue 0–179, saturation and value of bytes: divisions by tables of 12 fractional bits."""
    steps = np.arange(1, 256)
    tables = np.zeros((2, 256), np.int32)
    tables[0, 1:], tables[1, 1:] = np.rint((255 << 12) / steps), np.rint((180 << 12) / (6.0 * steps))
    by_value, by_spread = torch.from_numpy(tables).to(pixels.device)
    red, green, blue = pixels.int().unbind(-1)
    value = pixels.amax(-1).int()
    spread = value - pixels.amin(-1).int()
    saturation = (spread * by_value[value] + 2048) >> 12
    hue = torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread)
    hue = torch.where(value == red, green - blue, hue)
    hue = (hue * by_spread[spread] + 2048) >> 12
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Back, as OpenCV does it: in float32 with one rounding for ``1 − s f``, and cut off, not rounded, at the end."""
    s, v = saturation.float() * np.float32(1 / 255).item(), value.float() * np.float32(1 / 255).item()
    place = hue.float() * np.float32(6 / 180).item()
    sector = place.floor()
    part = place - sector
    sector = sector.int() % 6
    low = v * (1 - s)
    # A product of two float32 is exact in float64, and so the difference is rounded once, as fused.
    falling = v * (1 - s.double() * part.double()).float()
    rising = v * (1 - s.double() * (1 - part).double()).float()
    red = _chosen(sector, v, falling, low, low, rising, v)
    green = _chosen(sector, rising, v, v, falling, low, low)
    blue = _chosen(sector, low, low, rising, v, v, falling)
    return torch.stack([red, green, blue], dim=-1).mul_(255).to(torch.uint8)


def _chosen(sector: Tensor, *each: Tensor) -> Tensor:
    chosen = each[-1]
    for number in range(len(each) - 1):
        chosen = torch.where(sector == number, each[number], chosen)
    return chosen


def _blurred(pixels: Tensor, sigmas: Sequence[float]) -> Tensor:
    weights = [_kernel(sigma) for sigma in sigmas]
    reach = max(len(each) for each in weights) // 2
    padded = np.zeros((len(weights), 2 * reach + 1), np.float32)
    for row, each in enumerate(weights):
        start = reach - len(each) // 2
        padded[row, start : start + len(each)] = each
    kernel = torch.from_numpy(padded).to(pixels.device)
    values = pixels.permute(0, 3, 1, 2).float()
    # Sums of bytes times 256ths stay below 2²⁴, so that float32 is exact; a library's convolution need not be.
    for dim, pad in ((3, (reach, reach, 0, 0)), (2, (0, 0, reach, reach))):
        wide = torch.nn.functional.pad(values, pad, mode="reflect")
        size = values.shape[dim]
        values = torch.zeros_like(values)
        for tap in range(2 * reach + 1):
            values += wide.narrow(dim, tap, size) * kernel[:, tap].view(-1, 1, 1, 1)
    return ((values.long() + 2**15) >> 16).to(torch.uint8).permute(0, 2, 3, 1)


def _kernel(sigma: float) -> list[int]:
    """OpenCV's weights of a Gaussian for bytes, in 256ths: the rounding error of each is carried on to the next."""
    reach = (round(sigma * 6 + 1) | 1) // 2
    side = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(reach, 0, -1)]
    total = 2 * sum(side) + 1
    weights: list[int] = []
    error = 0.0
    for each in side:
        exact = each / total * 256 + error
        weights.append(round(exact))
        error = exact - weights[-1]
    return [*weights, 256 - 2 * sum(weights), *reversed(weights)]
