"""From stored codes and pixels to what a network is given: normalised images, and targets with their masks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dav2.data.feed import transforms
from dav2.data.feed.frame_table import LabelRange
from dav2.data.store.depth_codec import SKY, UNKNOWN, metric_table

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, per channel, for values in [0, 1]."""


SPACES = ("disparity", "log_depth", "depth", "metres")
"""What a loader can give: nearness as 1/depth, as -ln depth, as -depth, each scaled to [0, 1] per crop; or metres."""


def target_tables(
    target: str, min_depth: float, max_depth: float | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Target value and validity of every depth code.

    In all spaces but ``metres`` larger is nearer, so that a model trained in any of them orders pixels alike. The sky
    has disparity 0; how far it is in the other spaces nobody knows.
    """
    depth = metric_table()
    codes = np.arange(65536)
    if target == "disparity":
        values = np.zeros(65536, np.float32)
        np.divide(1, depth, out=values, where=(codes != UNKNOWN) & (codes != SKY))
        return values, codes != UNKNOWN
    far = np.inf if max_depth is None else max_depth
    with np.errstate(invalid="ignore", divide="ignore"):
        valid = np.isfinite(depth) & (depth > min_depth) & (depth <= far)
        values = {"log_depth": -np.log(depth), "depth": -depth, "metres": depth}[target]
    return np.where(valid, values, 0).astype(np.float32), valid


def label_target(
    codes: NDArray[np.uint16], label: LabelRange, geometry: transforms.Geometry
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A pseudo-label, placed like its photograph and scaled to [0, 1], and a mask that is all true.

    A label is in the space that its teacher predicts in, with larger nearer, and is taken as it is.
    """
    step = (label.high - label.low) / (2**label.bits - 1)
    disparity = transforms.place_linear(codes.astype(np.float32), geometry) * np.float32(step) + np.float32(label.low)
    mask = np.ones(disparity.shape, np.bool_)
    return unit_range(disparity, mask), mask


def unit_range(values: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Shift and scale so that the valid values span [0, 1]; a constant becomes 0, and so does what is masked."""
    low, high = values.min(where=mask, initial=np.inf), values.max(where=mask, initial=-np.inf)
    if low >= high:
        return np.zeros_like(values)
    scaled: NDArray[np.float32] = (values - low) / (high - low)
    scaled[~mask] = 0
    return scaled


def normalised(images: list[NDArray[np.uint8]]) -> torch.Tensor:
    """float32 (b, 3, H, W) of uint8 images (H, W, 3): (value / 255 − mean) / std of ImageNet."""
    # Channels are brought to the front while a pixel is still one byte, which moves a quarter of the memory.
    # Not by torch: its parallel loops would give this loader thread an OpenMP team of its own, and with more threads
    # than cores OpenMP lets the training's team sleep at every barrier, which doubled the time of a small step.
    stacked = np.empty((len(images), 3, *images[0].shape[:2]), np.uint8)
    np.stack([image.transpose(2, 0, 1) for image in images], out=stacked)
    std = np.asarray(STD, np.float32).reshape(3, 1, 1)
    offset = np.asarray(MEAN, np.float32).reshape(3, 1, 1) / std
    values = stacked.astype(np.float32)
    values *= 1 / (255 * std)
    values -= offset
    return torch.from_numpy(values)
