"""What tiles of a large photograph cost, and whether their seams show.

* ``seams``: a rendered room of 3,000 × 4,000 pixels (rendered at a quarter of that, enlarged) through a trained model,
  in tiles. The map is brought to the truth by one least squares over the whole image, in the model's space. *Seam*
  pixels lie within four pixels of a border of a tile, *inside* ones anywhere else. ``value`` is the mean absolute error
  as a share of the truth's range; ``step`` the mean absolute error of the difference of neighbouring pixels, in which a
  seam shows even where values are right. Beside it: tiles put side by side as the model gives them.
* ``memory``: peak resident memory of a process above what it has with the model loaded and one small image predicted,
  and seconds, for images of growing size. The image and its map are part of it.

    python -m benchmarks.tiles artifacts/models/student-vitt [seams memory]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from dav2 import load
from dav2.maps import Maps, Quantity
from dav2.predict import tiled
from dav2.predict.tiled import Tiled
from dav2.predict.tiles import Tiling, axis
from dav2.scores.alignment import apply, least_squares

SHAPE = (3000, 4000)
ENLARGED = 4
NEAR_SEAM = 4
SIZES = ((750, 1000), (1500, 2000), (3000, 4000))
CONSOLE = Console(width=120)
Map = NDArray[np.float32]


def room() -> tuple[NDArray[np.uint8], Map]:
    """A rendered room and its planar depth in metres, of ``SHAPE``."""
    from dav2.scenes.kinds import indoor
    from dav2.scenes.render import Renderer
    from dav2.scenes.stand import Lens, stand

    rng = np.random.default_rng(7)
    scene = indoor.build(rng)
    renderer = Renderer(scene)
    small = (SHAPE[0] // ENLARGED, SHAPE[1] // ENLARGED)
    taken = renderer.capture(stand(scene, renderer, Lens(small[1], small[0]), rng), 16, 0)
    rgb = cv2.resize(taken.rgb, SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
    depth = np.where(np.isfinite(taken.depth), taken.depth, np.float32(np.nan))
    return rgb.astype(np.uint8), cv2.resize(depth, SHAPE[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32)


def in_space(depth: Map, quantity: Quantity) -> Map:
    """Planar depth in the space of a model."""
    if quantity is Quantity.DISPARITY:
        return 1 / depth
    return np.log(depth) if quantity is Quantity.LOG_DEPTH else depth


def seam_mask(tiling: Tiling) -> NDArray[np.bool_]:
    """Where a border of a tile is near, bool of ``SHAPE``; the image's own borders are none."""
    lines = []
    for total in SHAPE:
        along, near = axis(total, tiling), np.zeros(total, bool)
        for start in along.starts:
            for border in (start, start + along.length):
                if 0 < border < total:
                    near[border - NEAR_SEAM : border + NEAR_SEAM] = True
        lines.append(near)
    return lines[0][:, None] | lines[1]


def errors(found: Map, truth: Map, seams: NDArray[np.bool_]) -> list[float]:
    """Error of values at seams and inside, and of steps at seams and inside, as shares of the truth's range."""
    known = np.isfinite(truth)
    one, other, mask = torch.from_numpy(found), torch.from_numpy(np.where(known, truth, 0)), torch.from_numpy(known)
    wrong = apply(one, *least_squares(one, other, mask)).numpy() - truth
    spread = float(np.subtract(*np.nanquantile(truth[::8, ::8], [0.98, 0.02])))
    step = np.maximum(
        np.abs(np.diff(wrong, axis=1, prepend=wrong[:, :1])), np.abs(np.diff(wrong, axis=0, prepend=wrong[:1]))
    )
    return [float(np.nanmean(each[part])) / spread for each in (np.abs(wrong), step) for part in (seams, ~seams)]


def bench_seams(model: str, side: int, size: int | None) -> None:
    """Errors at seams beside those inside."""
    rgb, depth = room()
    net = load(model, "cpu", torch.float32)
    truth = in_space(depth, net.quantity)
    table = Table("tiles", "overlap", "value at seams", "inside", "ratio", "step at seams", "inside", "ratio", "s")

    def row(name: str, overlap: float) -> None:
        began = time.perf_counter()
        found = Tiled(net, Tiling(side, overlap)).infer_image(rgb, size)
        spent = time.perf_counter() - began
        value, value_in, step, step_in = errors(found, truth, seam_mask(Tiling(side, overlap)))
        shown = [f"{each:.2e}" for each in (value, value_in, step, step_in)]
        ratios = [f"{value / value_in:.2f}", f"{step / step_in:.2f}"]
        table.add_row(name, f"{overlap}", *shown[:2], ratios[0], *shown[2:], ratios[1], f"{spent:.1f}")

    for overlap in (0.5, 0.25, 0.0):
        row("fitted", overlap)
    kept = tiled.fitted
    tiled.fitted = _as_it_is
    row("as they come", 0.0)
    tiled.fitted = kept
    CONSOLE.print(table)


def _as_it_is(part: Maps[Map], whole: Maps[Map]) -> Maps[Map]:
    return part


def bench_memory(model: str, side: int, size: int | None) -> None:
    """Peak memory by size of the image, each in a process of its own."""
    table = Table("image", "above the model MB", "of it image and maps MB", "s")
    for height, width in SIZES:
        asked = [
            sys.executable,
            "-m",
            "benchmarks.tiles",
            model,
            "alone",
            "--side",
            str(side),
            "--size",
            str(size or 0),
        ]
        done = subprocess.run([*asked, "--shape", str(height), str(width)], check=True, capture_output=True, text=True)
        peak, spent = done.stdout.split()
        table.add_row(f"{height} × {width}", peak, f"{height * width * 7 / 1e6:.0f}", spent)
    CONSOLE.print(table)


def alone(model: str, side: int, size: int | None, shape: tuple[int, int]) -> None:
    """Print the peak above the model and the seconds of one image."""
    net = load(model, "cpu", torch.float32)
    net.infer_image(np.zeros((side, side, 3), np.uint8), size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    began = time.perf_counter()
    Tiled(net, Tiling(side)).infer_image(rgb, size)
    spent = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{(peak - before) * 1024 / 1e6:.0f} {spent:.1f}")


PARTS: dict[str, Callable[[str, int, int | None], None]] = {"seams": bench_seams, "memory": bench_memory}


def main() -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--side", type=int, default=768, help="of a tile, in pixels")
    parser.add_argument("--size", type=int, default=0, help="at which the network sees a tile; 0 is its own")
    parser.add_argument("--shape", type=int, nargs=2, default=SHAPE)
    given = parser.parse_args()
    size = given.size or None
    if given.parts == ["alone"]:
        alone(given.model, given.side, size, tuple(given.shape))
        return
    for part in given.parts or PARTS:
        PARTS[part](given.model, given.side, size)


if __name__ == "__main__":
    main()
