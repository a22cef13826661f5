"""``dav2 plan``: what a labelling or training job will take, each figure with its origin."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dav2.cli.progress import step

if TYPE_CHECKING:
    from dav2.planning import Known, Line


def plan(
    job: Annotated[str, typer.Argument(help="label or train")] = "label",
    size: Annotated[str, typer.Option(help="Model that labels or is trained: vits … vitg, vits3 … vitl3.")] = "vitg",
    source: Annotated[str | None, typer.Option(help="Folder of image shards: count and bytes come from it.")] = None,
    images: Annotated[float, typer.Option(help="Photographs, where no source is given.")] = 62e6,
    image_kib: Annotated[float, typer.Option(help="Mean KiB of a photograph, where no source is given.")] = 300.0,
    shard_frames: Annotated[
        int, typer.Option(min=1, help="Photographs of a shard, where no source is given.")
    ] = 10_000,
    labels: Annotated[str | None, typer.Option(help="Folder of finished labels, for the bytes of one.")] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Short side in pixels; photographs are taken as 4:3. Left out, the size's own.")
    ] = None,
    codec: Annotated[str, typer.Option(help="png16, jpegls12 or jxl12.")] = "jpegls12",
    bits: Annotated[int, typer.Option(min=8, max=16, help="Bits of a stored label.")] = 10,
    device: Annotated[str, typer.Option(help="here (measured), or v100 a100 h100 h200 l4.")] = "h100",
    devices: Annotated[int, typer.Option(min=1, help="Devices that work at the same time.")] = 64,
    efficiency: Annotated[float | None, typer.Option(help="Share of the peak that the model reaches there.")] = None,
    rate: Annotated[float | None, typer.Option(help="Images per second of a device, if you know it.")] = None,
    price: Annotated[float | None, typer.Option(help="USD per device and hour.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="train: global batch.")] = 192,
    steps: Annotated[int, typer.Option(min=1, help="train: optimiser steps.")] = 480_000,
    memory: Annotated[float | None, typer.Option(help="train: GB of a device, if not the data sheet's.")] = None,
    table: Annotated[bool, typer.Option(help="Every size published on that encoder, on every device.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Plan a job: hours, devices, bytes, requests, cost. What is assumed says so, and every assumption is an option."""
    from dav2 import planning
    from dav2.families.depth_anything.sizes import SIZES

    if job not in ("label", "train"):
        raise typer.BadParameter(f"job must be 'label' or 'train', not '{job}'")
    if size not in SIZES:
        raise typer.BadParameter(f"no model size '{size}'; there are: {', '.join(SIZES)}")
    if device != "here" and device not in planning.DEVICES:
        raise typer.BadParameter(f"no device '{device}'; there are: here, {', '.join(planning.DEVICES)}")
    if codec not in planning.LABEL_BYTES:
        raise typer.BadParameter(f"no codec '{codec}'; there are: {', '.join(planning.LABEL_BYTES)}")
    _above_zero(images=images, image_kib=image_kib, rate=rate, memory=memory, price=price or None)
    share = _share(efficiency)
    input_size = _side(size, input_size)
    if table:
        _print_table(job, size, input_size, images, share, as_json)
        return
    with step("counting and measuring", logged=False):
        speed = _rate(job, size, input_size, device, share, rate)
    listed = planning.DEVICES.get(device)
    cost = planning.Known(price, "--price") if price is not None else None
    cost = cost or planning.Known(listed.price if listed else 0.0, f"{planning.ASSUMED}: set it with --price")
    if job == "train":
        scaling = planning.Known(0.9, f"{planning.ASSUMED}: gradients are exchanged while others are computed")
        steps_, batch_ = planning.Known(steps, "--steps"), planning.Known(batch, "--batch")
        lines = planning.plan_training(planning.TrainJob(steps_, batch_, speed, devices, scaling, cost))
        lines += _fitted(size, input_size, device, batch, devices, memory)
    else:
        counted = _photographs(source, images, image_kib, shard_frames)
        stored = _label_bytes(labels, codec, bits, input_size * _width(size, input_size))
        work = _host_seconds(size, input_size, codec, bits)
        lines = planning.plan_labelling(planning.LabelJob(*counted[:2], speed, counted[2], stored, work, devices, cost))
    _print(lines, as_json, f"{job} with {size} at {input_size} px on {devices} × {device}")


def _share(efficiency: float | None) -> Known:
    from dav2 import planning

    if efficiency is None:
        return planning.EFFICIENCY
    if not 0 < efficiency <= 1:
        raise typer.BadParameter(f"--efficiency is a share of the peak, above 0 and at most 1, not {efficiency:g}")
    return planning.Known(efficiency, "--efficiency")


def _above_zero(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise typer.BadParameter(f"--{name.replace('_', '-')} must be a number above 0, not {value:g}")


def _fitted(size: str, side: int, device: str, batch: int, devices: int, memory: float | None) -> list[Line]:
    """How the job lies in the memory of a device; nothing where that is not known."""
    from dav2 import machine, planning
    from dav2.families.depth_anything.counting import footprint

    if batch % devices:
        raise typer.BadParameter(f"--batch {batch} is no multiple of --devices {devices}")
    listed, gpu = planning.DEVICES.get(device), machine.look().gpu
    if memory is not None:
        room = planning.Known(memory * 1e9, "--memory")
    elif listed is not None:
        room = planning.Known(listed.memory * 1e9, f"data sheet of {device}; --memory replaces it")
    elif gpu is not None:
        room = planning.Known(float(gpu.memory), f"measured here: {gpu.name}")
    else:
        return []
    fit = planning.fit_training(lambda recomputed: footprint(size, side, recomputed), room.value, batch, devices)
    return planning.fit_lines(fit, room)


def _side(size: str, input_size: int | None) -> int:
    from dav2.families.depth_anything.model import check_input_size
    from dav2.families.depth_anything.sizes import get_size

    network = get_size(size)
    if input_size is None:
        return network.input_size
    try:
        check_input_size(input_size, network.patch)
    except ValueError as error:
        raise typer.BadParameter(f"{error} (for {size})") from None
    return input_size


def _width(size: str, input_size: int) -> int:
    """Long side of a 4:3 photograph as the network sees it."""
    from dav2.families.depth_anything.preprocess import network_shape
    from dav2.families.depth_anything.sizes import get_size

    return network_shape(3 * 1024, 4 * 1024, input_size, get_size(size).patch)[1]


def _rate(job: str, size: str, input_size: int, device: str, share: Known, rate: float | None) -> Known:
    from dav2 import machine
    from dav2.families.depth_anything.counting import count_gflops
    from dav2.families.depth_anything.family import DepthAnythingFamily
    from dav2.families.depth_anything.model import build
    from dav2.planning import TRAINING_FACTOR, Known, derived_rate
    from dav2.pseudo_label.measure import forward_rate

    factor = TRAINING_FACTOR if job == "train" else 1.0
    if rate is not None:
        return Known(rate, "--rate")
    width = input_size if job == "train" else _width(size, input_size)
    if device != "here":
        return derived_rate(factor * count_gflops(size, input_size, width), device, share)
    precision = machine.precision("auto")
    teaching = DepthAnythingFamily().teaching(build(size), precision.name, machine.device())
    square = forward_rate(teaching, input_size, 1)
    wide = square * input_size / width / factor
    note = f" / {factor:g} (forward and backward)" if factor > 1 else ""
    measured = f"measured here in {precision.name}: {square:.3g} square images/s"
    return Known(wide, f"{measured}, × {input_size}/{width} for 4:3{note}")


def _photographs(source: str | None, images: float, image_kib: float, shard_frames: int) -> tuple[Known, Known, Known]:
    from dav2.data.store.manifest import read_table, shard_table
    from dav2.planning import ASSUMED, Known

    if source is None:
        size = Known(image_kib * 1024, f"{ASSUMED} (--image-kib)")
        return Known(images, "--images"), Known(shard_frames, "--shard-frames"), size
    count = read_table(source, ["size_image"])
    shards = shard_table(source)
    mean = sum(count["size_image"].to_pylist()) / max(count.num_rows, 1)
    frames = count.num_rows / max(len(shards), 1)
    return Known(count.num_rows, f"manifest of {source}"), Known(frames, "manifest"), Known(mean, "manifest")


def _label_bytes(labels: str | None, codec: str, bits: int, pixels: int) -> Known:
    """Bytes of a 4:3 label, from the labels at hand or from the codec's usual bytes per pixel."""
    from dav2.data.store.manifest import read_table
    from dav2.planning import ASSUMED, Known, label_bytes

    if labels is None:
        each = label_bytes(codec, bits)
        return Known(each * pixels, f"{ASSUMED}: {each:.3g} bytes a pixel in {codec}; --labels measures your own")
    table = read_table(labels, ["size_label", "height", "width"]).to_pandas()
    each = float(table["size_label"].sum() / (table["height"] * table["width"]).sum())
    return Known(each * pixels, f"{each:.3g} bytes a pixel, measured over {len(table)} labels in {labels}")


def _host_seconds(size: str, input_size: int, codec: str, bits: int) -> Known:
    from skimage.data import chelsea

    from dav2.data.images import encode_jpeg
    from dav2.families.depth_anything.preprocess import preprocess
    from dav2.families.depth_anything.sizes import get_size
    from dav2.planning import Known
    from dav2.pseudo_label.measure import host_seconds

    prepare = partial(preprocess, patch=get_size(size).patch)
    seconds = host_seconds(encode_jpeg(chelsea()), prepare, input_size, codec, bits)
    return Known(seconds, f"decode, resize, measure and encode, measured here on a 451 × 300 photograph as {codec}")


def _print(lines: list[Line], as_json: bool, title: str) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    if as_json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
        return
    table = Table("what", "value", "where it comes from", title=title)
    for line in lines:
        table.add_row(line.name, f"{_readable(line.value)} {line.unit}".rstrip(), line.origin)
    Console().print(table)


def _print_table(job: str, like: str, input_size: int, images: float, share: Known, as_json: bool) -> None:
    """Device hours of every published size, with the encoder that ``like`` has, on every device."""
    from rich.console import Console
    from rich.table import Table

    from dav2.families.depth_anything.counting import count_gflops
    from dav2.families.depth_anything.sizes import SIZES
    from dav2.planning import DEVICES, TRAINING_FACTOR, derived_rate

    factor = TRAINING_FACTOR if job == "train" else 1.0
    width = _width(like, input_size)
    rows: list[dict[str, Any]] = []
    for size in (name for name, each in SIZES.items() if each.pretrained and each.dinov3 == SIZES[like].dinov3):
        gflops = factor * count_gflops(size, input_size, width)
        hours = {name: images / derived_rate(gflops, name, share).value / 3600 for name in DEVICES}
        rows.append({"size": size, "GFLOP": gflops, **hours})
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    title = f"Device hours to {job} {_readable(images)} images at {input_size} × {width}, {share.value:g} of the peak"
    table = Table("size", "GFLOP/image", *DEVICES, title=title, caption=share.origin)
    for row in rows:
        table.add_row(row["size"], *(_readable(value) for name, value in row.items() if name != "size"))
    Console().print(table)


def _readable(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
