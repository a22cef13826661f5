"""What a labelling or training job will take: hours, devices, bytes, requests, cost, each figure with its origin.

A rate is either measured on the device at hand, or derived for another device from the exact number of operations of
the model and a share of the data sheet's peak. What is assumed is called an assumption; every one can be replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ASSUMED = "assumption"

Job = Literal["label", "train"]


@dataclass(frozen=True, slots=True)
class Known:
    """A number and where it comes from."""

    value: float
    origin: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plan."""

    name: str
    value: float
    unit: str
    origin: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device that may be rented.

    Attributes:
        tflops: dense matrix peak in 10¹² operations per second at 16 bit with 32-bit accumulation, from the data sheet.
        price: assumed price in USD per hour.
    """

    tflops: float
    price: float


DEVICES = {
    "v100": Device(125.0, 1.0),
    "a100": Device(312.0, 1.8),
    "h100": Device(989.0, 3.0),
    "h200": Device(989.0, 3.8),
    "l4": Device(121.0, 0.7),
}
"""Peaks: the makers' data sheets (V100 SXM2 fp16; the others bf16 without sparsity; H100 and H200 SXM)."""

EFFICIENCY = Known(0.4, f"{ASSUMED}: usual for vision transformers in bf16; measure on the device to replace it")

# List prices of S3 Standard in us-east-1 as published; check them before you rely on a sum.
S3_GET = Known(0.4e-6, "S3 list price, us-east-1: USD 0.0004 per 1000 GET")
S3_PUT = Known(5e-6, "S3 list price, us-east-1: USD 0.005 per 1000 PUT")
S3_MONTH = Known(0.023e-9, "S3 list price, us-east-1: USD 0.023 per GB and month")

LABEL_BYTES = {"png16": (16, 1.45), "jpegls12": (10, 0.28), "jxl12": (12, 0.59)}
"""Codec → bits, bytes a pixel of a stored label: ``benchmarks/labelling.py --only labels`` with a trained teacher."""
BYTES_A_BIT = 0.11
"""What a bit more costs a pixel, measured there as well; PNG always stores sixteen."""

GETS_PER_SHARD = 6
"""Receipt and size looked up when planning, manifest footer and row group, the shard's size and content."""
PUTS_PER_SHARD = 3
"""Label tar, rows, receipt."""
TRAINING_FACTOR = 3.0
"""Operations of a training step over those of a forward pass: going back computes two products for each one."""


def label_bytes(codec: str, bits: int) -> float:
    """Bytes a pixel of a stored label."""
    measured_bits, each = LABEL_BYTES[codec]
    return each if codec == "png16" else max(each + BYTES_A_BIT * (bits - measured_bits), 0.05)


@dataclass(frozen=True, slots=True)
class LabelJob:
    """A labelling job.

    Attributes:
        images: photographs.
        shard_frames: photographs of a shard.
        rate: photographs per second of one device, everything included.
        image_bytes: mean bytes of a photograph.
        label_bytes: mean bytes of a label.
        core_seconds: CPU time to decode a photograph and encode its label.
        devices: devices that work at the same time.
        price: USD per device and hour.
    """

    images: Known
    shard_frames: Known
    rate: Known
    image_bytes: Known
    label_bytes: Known
    core_seconds: Known
    devices: int
    price: Known


def derived_rate(gflops: float, device: str, efficiency: Known = EFFICIENCY) -> Known:
    """Images per second of a data-sheet device from the operations of one image."""
    rate = DEVICES[device].tflops * 1e3 * efficiency.value / gflops
    origin = f"{gflops:.0f} GFLOP counted; {device} peak {DEVICES[device].tflops:.0f} TFLOP/s × {efficiency.value:g}"
    return Known(rate, f"{origin} ({efficiency.origin})")


def plan_labelling(job: LabelJob) -> list[Line]:
    """The lines of a labelling plan, computed from ``job``."""
    device_hours = job.images.value / job.rate.value / 3600
    shards = -(-job.images.value // job.shard_frames.value)
    read, written = job.images.value * job.image_bytes.value, job.images.value * job.label_bytes.value
    requests = shards * GETS_PER_SHARD * S3_GET.value + shards * PUTS_PER_SHARD * S3_PUT.value
    cores = job.rate.value * job.core_seconds.value
    photo = f"{job.image_bytes.value / 1024:.0f} KiB each"
    label = f"{job.label_bytes.value / 1024:.0f} KiB each"
    work = f"rate × {job.core_seconds.value * 1e3:.0f} ms"
    return [
        Line("photographs", job.images.value, "", job.images.origin),
        Line("rate of a device", job.rate.value, "images/s", job.rate.origin),
        Line("device hours", device_hours, "h", "photographs / rate"),
        Line("devices", job.devices, "", "asked for"),
        Line("wall time", device_hours / job.devices, "h", "device hours / devices; shards share no state"),
        Line("cores for each device", cores, "", f"{work}: {job.core_seconds.origin}"),
        Line("shards", shards, "", f"{job.shard_frames.value:g} photographs each: {job.shard_frames.origin}"),
        Line("bytes read", read / 1e12, "TB", f"{photo}: {job.image_bytes.origin}"),
        Line("bytes written", written / 1e12, "TB", f"{label}: {job.label_bytes.origin}"),
        Line("GET requests", shards * GETS_PER_SHARD, "", f"{GETS_PER_SHARD} for each shard"),
        Line("PUT requests", shards * PUTS_PER_SHARD, "", f"{PUTS_PER_SHARD} for each shard"),
        Line("cost of devices", device_hours * job.price.value, "USD", f"{job.price.value:g}/h: {job.price.origin}"),
        Line("cost of requests", requests, "USD", f"{S3_GET.origin}; {S3_PUT.origin}"),
        Line("cost of label storage", written * S3_MONTH.value, "USD/month", S3_MONTH.origin),
    ]


@dataclass(frozen=True, slots=True)
class TrainJob:
    """A training job: ``steps`` of ``batch`` images at ``rate`` trained images per second and device."""

    steps: Known
    batch: Known
    rate: Known
    devices: int
    scaling: Known
    price: Known


def plan_training(job: TrainJob) -> list[Line]:
    """The lines of a training plan, computed from ``job``."""
    images = job.steps.value * job.batch.value
    hours = images / (job.rate.value * job.devices * job.scaling.value) / 3600
    price = f"{job.price.value:g}/h: {job.price.origin}"
    return [
        Line("steps", job.steps.value, "", job.steps.origin),
        Line("global batch", job.batch.value, "images", job.batch.origin),
        Line("images seen", images, "", "steps × batch"),
        Line("rate of a device", job.rate.value, "images/s", job.rate.origin),
        Line("devices", job.devices, "", "asked for"),
        Line("share kept over devices", job.scaling.value, "", job.scaling.origin),
        Line("wall time", hours, "h", "images / (rate × devices × share)"),
        Line("device hours", hours * job.devices, "h", "wall time × devices"),
        Line("cost of devices", hours * job.devices * job.price.value, "USD", price),
    ]
