"""Tiles of large photographs: weights, fits in closed form, one noise, and the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

from dav2 import families
from dav2.cli import build as command_line
from dav2.data.images import encode_jpeg
from dav2.maps import Maps, Quantity
from dav2.predict.tiled import Tiled, fitted
from dav2.predict.tiles import Tiling, axis, cut
from tests.families.marigold.builders import model, patch_codec, photograph

Map = NDArray[np.float32]


class Seen(NamedTuple):
    """Scale and shift of what a stub saw last."""

    scale: float
    shift: float


class Reader(nn.Module):
    """A stub whose map is in the picture: nearness from red, with a scale and shift of its own for every image."""

    family = "depth_anything"

    def __init__(self, quantity: Quantity = Quantity.DISPARITY, turned: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.quantity, self.turned = quantity, turned
        self.seen: list[tuple[int, ...]] = []

    def infer_maps(self, images: Sequence[NDArray[np.uint8]], input_size: int | None = None) -> list[Maps[Map]]:
        return [self._one(rgb) for rgb in images]

    def _one(self, rgb: NDArray[np.uint8]) -> Maps[Map]:
        self.seen.append(rgb.shape)
        number = len(self.seen)
        values = rgb[..., 0].astype(np.float32) / 255 + rgb[..., 1].astype(np.float32) / 255**2
        if number == 1:
            return Maps(self.quantity, values)
        scale = np.float32(1.5**number * (-1 if self.turned else 1))
        shift = 0 if self.quantity is Quantity.METRES else number
        return Maps(self.quantity, scale * values + np.float32(shift))


def plane(height: int, width: int) -> tuple[NDArray[np.uint8], Map]:
    """A picture whose red and green hold a plane to 16 bits, and the plane."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    values = 0.1 + 0.3 * (y + 0.5) / height + 0.5 * (x + 0.5) / width
    red = np.floor(values * 255)
    green = np.round((values * 255 - red) * 255)
    rgb = np.stack([red, green, np.zeros_like(red)], axis=-1).astype(np.uint8)
    return rgb, (red / 255 + green / 255**2).astype(np.float32)


@pytest.mark.parametrize(("total", "side", "overlap"), [(100, 32, 0.5), (97, 40, 0.25), (64, 64, 0.5), (90, 30, 0.0)])
def test_weights_of_an_axis_add_up_to_one_and_tiles_reach_its_end(total: int, side: int, overlap: float) -> None:
    found = axis(total, Tiling(side, overlap))
    sums = np.zeros(total)
    for start, weight in zip(found.starts, found.weights, strict=True):
        assert weight.min() > 0
        sums[start : start + found.length] += weight
    assert np.allclose(sums, 1, atol=1e-6) and found.starts[-1] + found.length == total
    assert all(b - a <= side - round(overlap * side) for a, b in zip(found.starts, found.starts[1:], strict=False))


def test_tiles_cover_a_photograph_once_by_weight() -> None:
    sums = np.zeros((70, 110))
    for tile in cut((70, 110), Tiling(32)):
        sums[tile.rows, tile.columns] += tile.weight
    assert np.allclose(sums, 1, atol=1e-6)


@pytest.mark.parametrize("quantity", [Quantity.DISPARITY, Quantity.LOG_DEPTH, Quantity.METRES])
def test_a_plane_seen_in_tiles_with_scales_and_shifts_of_their_own_is_the_plane(quantity: Quantity) -> None:
    rgb, values = plane(96, 160)
    stub = Reader(quantity)
    found = Tiled(stub, Tiling(48, 0.5)).infer_maps([rgb])[0]
    assert found.quantity is quantity and len(stub.seen) == 1 + 3 * 6
    assert stub.seen[0] == (48, 80, 3) and set(stub.seen[1:]) == {(48, 48, 3)}
    # What is left is the rounding to 8 bits of the whole, which was reduced.
    assert np.abs(found.values - values).max() < 4e-3
    jumps = np.abs(np.diff(found.values - values, axis=1))
    assert jumps.max() < 1e-3


def test_a_tile_that_contradicts_the_whole_gives_way_to_it() -> None:
    rgb, values = plane(64, 128)
    found = Tiled(Reader(turned=True), Tiling(32, 0.5)).infer_maps([rgb])[0].values
    assert np.abs(found - values).max() < 8e-3


def test_shading_and_residual_keep_their_ratio_and_albedo_its_value() -> None:
    rng = np.random.default_rng(0)
    light = rng.uniform(0.1, 0.5, (3, 8, 9)).astype(np.float32)
    albedo = Maps(Quantity.ALBEDO, light * 0.7, None, "linear")

    def layers(factor: float, of: Map) -> Maps[Map]:
        beside = (
            Maps(Quantity.SHADING, light * np.float32(factor), None, "linear"),
            Maps(Quantity.RESIDUAL, light * np.float32(factor / 4), None, "linear"),
        )
        return Maps(Quantity.ALBEDO, of, None, "linear", beside)

    found = fitted(layers(0.25, albedo.values), layers(1.0, albedo.values * 2))
    assert np.allclose(found.values, albedo.values)
    assert np.allclose(found.beside[0].values, light, rtol=1e-5)
    assert np.allclose(found.beside[1].values, light / 4, rtol=1e-5)


def test_parts_of_a_photograph_begin_from_one_noise() -> None:
    net = model(patch_codec())
    rgb = photograph(64, 96)
    family = families.of_model(net)
    left, right = (family.infer_part(net, rgb[:, :64], (0, at), (64, 96)).values for at in (0, 32))
    again = family.infer_part(net, rgb[:, :64], (0, 32), (64, 96)).values
    assert (right == again).all() and np.abs(left - right).max() > 1e-3
    with torch.inference_mode():
        noise = net.starts((64 + 2 * net.factor, 96 + 2 * net.factor), net.how())
        begun = net._from([rgb[:, :64]], noise[..., :8, 4:12], net.how(), 64)[0].values
    assert (right == begun).all()


@pytest.mark.parametrize("layers", [(), (Quantity.NORMALS,)])
def test_diffusion_models_are_tiled_and_normals_keep_length_one(layers: tuple[Quantity, ...]) -> None:
    quantity = layers[0] if layers else Quantity.DEPTH
    net = model(patch_codec(12 if layers else 4), quantity=quantity, layers=layers, input_size=32)
    found = Tiled(net, Tiling(32, 0.5)).infer_maps([photograph(48, 64)])[0]
    assert found.quantity is quantity and found.values.shape[-2:] == (48, 64) and np.isfinite(found.values).all()
    if layers:
        assert np.allclose(np.linalg.norm(found.values, axis=0), 1, atol=1e-5)


def run(*arguments: str | Path) -> tuple[int, str]:
    given = ["predict", *map(str, arguments), "--dtype", "fp32", "--device", "cpu"]
    result = CliRunner(env={"COLUMNS": "400"}).invoke(command_line("predict"), given)
    return result.exit_code, result.output


def test_the_command_tiles_large_images_and_leaves_small_ones_as_they_are(models: Path, tmp_path: Path) -> None:
    for name, shape in (("large", (90, 130)), ("small", (40, 50))):
        (tmp_path / f"{name}.jpg").write_bytes(encode_jpeg(photograph(*shape), 95))
    inputs = (tmp_path / "large.jpg", tmp_path / "small.jpg", "-m", models / "metric", "--size", "28", "--save", "npy")
    for out, more in (("plain", ()), ("tiled", ("--tile", "56", "--tile-overlap", "0.25"))):
        code, said = run(*inputs, "-o", tmp_path / out, *more)
        assert code == 0, said
    maps = {name: [np.load(tmp_path / out / f"{name}_depth.npy") for out in ("plain", "tiled")] for name in
            ("large", "small")}  # fmt: skip
    assert (maps["small"][0] == maps["small"][1]).all()
    assert maps["large"][1].shape == (90, 130) and (maps["large"][0] != maps["large"][1]).any()


@pytest.mark.parametrize(
    ("more", "message"),
    [(("--tile", "8"), "at least 16 pixels"), (("--tile", "64", "--tile-overlap", "1"), "overlap by 0 to 0.9")],
)
def test_tiles_that_cannot_be_are_refused(models: Path, tmp_path: Path, more: tuple[str, ...], message: str) -> None:
    code, said = run(tmp_path, "-m", models / "relative", *more)
    assert code != 0 and message in said
