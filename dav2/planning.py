"""What a labelling or training job will take: hours, devices, bytes, requests, cost, each figure with its origin.

A rate is either measured on the device at hand, or derived for another device from the exact number of operations of
the model and a share of the data sheet's peak. What is assumed is called an assumption; every one can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dav2.chips import CHIPS

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
        memory: GB.
        price: assumed price in USD per hour.
    """

    tflops: float
    memory: int
    price: float


DEVICES = {
    name.lower(): Device(CHIPS[name].tflops, CHIPS[name].memory, price)
    for name, price in (("V100", 1.0), ("A100", 1.8), ("H100", 3.0), ("H200", 3.8), ("L4", 0.7))
}
"""Peaks and memory: the maker's data sheets (:mod:`dav2.chips`)."""

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


@dataclass(frozen=True, slots=True)
class Fit:
    """How a training job lies in the memory of its devices.

    Attributes:
        micro: images of one forward pass on one device; ``accumulate`` of them make its share of the batch.
        stage: of ZeRO; it shares out among the devices: 1 the optimiser's states, 2 gradients too, 3 weights too.
        checkpointing: whether activations are recomputed.
        bytes: at the peak, modelled.
        fits: whether that is within the memory.
    """

    micro: int
    accumulate: int
    stage: int
    checkpointing: bool
    bytes: float
    fits: bool


ENOUGH = 8
"""Images of a forward pass from which on a GPU is busy (facts: ViT-g with 8 reaches ten times what it does with 1)."""
SPARE = 1.1
"""Of what is counted, for what the allocator cannot use; measured peaks are 0.90 to 1.08 of the count (docs/gpu.md)."""
CONTEXT = 1e9
"""Bytes of CUDA itself and its libraries."""
STATES = (4, 4, 8)
"""Bytes a parameter: weights, gradients, two moments, all float32."""


def peak_bytes(parameters: int, fixed: int, image: int, micro: int, stage: int, devices: int) -> float:
    """Modelled peak on one device.

    Args:
        parameters, fixed, image: see :class:`dav2.families.depth_anything.counting.Footprint`.
    """
    weights, gradients, moments = STATES
    share = [1 / devices if stage >= first else 1.0 for first in (3, 2, 1)]
    states = parameters * (weights * share[0] + gradients * share[1] + moments * share[2])
    return SPARE * (states + fixed + micro * image) + CONTEXT


def fit_training(footprint: Callable[[bool], tuple[int, int, int]], memory: float, batch: int, devices: int) -> Fit:
    """The plainest way in which a job fits: no recomputation and a low ZeRO stage before others, but no tiny batches.

    Args:
        footprint: parameters, fixed bytes and bytes an image, without and with recomputed activations.
        memory: bytes of a device.
        batch: global; a multiple of ``devices``.
    """
    share = batch // devices
    found: list[Fit] = []
    for checkpointing in (False, True):
        counted = footprint(checkpointing)
        for stage in range(4 if devices > 1 else 1):
            for micro in (each for each in range(share, 0, -1) if share % each == 0):
                peak = peak_bytes(*counted, micro, stage, devices)
                if peak <= memory:
                    found.append(Fit(micro, share // micro, stage, checkpointing, peak, True))
                    break
    least = min(ENOUGH, share)
    good = next((fit for fit in found if fit.micro >= least), None)
    if good or found:
        return good or max(found, key=lambda fit: fit.micro)
    stage = 3 if devices > 1 else 0
    return Fit(1, share, stage, True, peak_bytes(*footprint(True), 1, stage, devices), False)


def fit_lines(fit: Fit, memory: Known) -> list[Line]:
    """The lines of a plan that say how it lies in memory."""
    counted = "counted: states, what autograd keeps of an image, a tenth more, 1 GB for CUDA"
    wanted = "" if fit.fits else " - DOES NOT FIT: more devices, or a smaller size or crop"
    return [
        Line("memory of a device", memory.value / 1e9, "GB", memory.origin),
        Line("images of a forward pass", fit.micro, "", f"compute.world_size and optim.accumulate: {fit.accumulate}"),
        Line("ZeRO stage", fit.stage, "", f"compute.deepspeed: infra/deepspeed/{_FILES[fit.stage]}"),
        Line("activations recomputed", float(fit.checkpointing), "", "compute.activation_checkpointing (1 is true)"),
        Line("peak of a device", fit.bytes / 1e9, "GB", counted + wanted),
    ]


_FILES = ("gpu.json", "node.json", "nodes.json", "nodes-zero3.json")
