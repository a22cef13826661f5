"""Seeded bitmaps for surfaces: float32 (N, N, 3) linear reflectance that tiles without a seam."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.float32]
Colour = tuple[float, float, float]
Random = np.random.Generator

SIZE = 128


def colour(
    rng: Random,
    hue: tuple[float, float] = (0, 1),
    saturation: tuple[float, float] = (0.05, 0.75),
    value: tuple[float, float] = (0.15, 0.85),
) -> Colour:
    """A random colour from ranges of hue, saturation and value, each in 0…1."""
    return colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))


def pink(rng: Random, slope: float = 1.2, size: int = SIZE) -> NDArray[np.float32]:
    """(N, N) noise in 0…1 whose amplitude falls with frequency to the power ``slope``."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(size, size))
    low, high = np.quantile(field, [0.02, 0.98])
    return np.clip((field - low) / (high - low), 0, 1).astype(np.float32)


def blend(weight: NDArray[np.float32] | NDArray[np.bool_], first: Colour, second: Colour) -> Bitmap:
    """``first`` where ``weight`` (N, N) is 0, ``second`` where it is 1."""
    share = weight.astype(np.float32)[..., None]
    return (np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share).astype(np.float32)


def grain(rng: Random, bitmap: Bitmap, amount: float) -> Bitmap:
    """``bitmap`` with its brightness varied by noise."""
    return np.clip(bitmap * (1 + amount * (pink(rng, 0.8)[..., None] - 0.5)), 0, 0.95).astype(np.float32)


def _axes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    return rows, columns


def clouds(rng: Random) -> Bitmap:
    """Soft noise of several scales."""
    return blend(pink(rng, rng.uniform(0.7, 1.8)), colour(rng), colour(rng))


def checker(rng: Random) -> Bitmap:
    """Two colours in squares."""
    rows, columns = _axes()
    count = int(rng.choice([2, 4, 8]))
    pattern = (np.floor(rows * count) + np.floor(columns * count)) % 2 == 1
    return grain(rng, blend(pattern, colour(rng), colour(rng)), 0.2)


def stripes(rng: Random) -> Bitmap:
    """Two colours in bands."""
    rows, columns = _axes()
    axis = rows if rng.random() < 0.5 else columns
    return grain(rng, blend(axis * rng.integers(3, 12) % 1 < rng.uniform(0.2, 0.8), colour(rng), colour(rng)), 0.2)


def bricks(rng: Random) -> Bitmap:
    """Rows of bricks with mortar between."""
    rows, columns = _axes()
    courses = int(rng.choice([4, 6, 8, 10]))
    shifted = columns * courses / 2 + 0.5 * (np.floor(rows * courses) % 2)
    mortar = (rows * courses % 1 < 0.12) | (shifted % 1 < 0.06)
    stones = np.floor(rows * courses) * 57 + np.floor(shifted) % (courses / 2)
    tone = 0.75 + 0.5 * rng.random(4096)[stones.astype(int) % 4096]
    warm = colour(rng, (0.0, 0.12), (0.2, 0.7), (0.25, 0.7))
    wall = blend(mortar, warm, colour(rng, saturation=(0, 0.15), value=(0.4, 0.8)))
    return grain(rng, (wall * np.where(mortar, 1, tone)[..., None]).astype(np.float32), 0.3)


def planks(rng: Random) -> Bitmap:
    """Boards with grain."""
    _, columns = _axes()
    count = int(rng.choice([4, 6, 8]))
    tone = 0.7 + 0.6 * rng.random(count)[np.floor(columns * count).astype(int)]
    fibre = np.repeat(pink(rng, 0.6)[:1], SIZE, axis=0) * 0.3 + 0.85
    wood = np.asarray(colour(rng, (0.04, 0.12), (0.3, 0.7), (0.25, 0.75)))
    gaps = np.where(columns * count % 1 < 0.05, 0.4, 1.0)
    return np.clip(wood * (tone * fibre * gaps)[..., None], 0, 0.95).astype(np.float32)


def tiles(rng: Random) -> Bitmap:
    """Square tiles with joints."""
    rows, columns = _axes()
    count = int(rng.choice([2, 4, 6]))
    joint = (rows * count % 1 < 0.06) | (columns * count % 1 < 0.06)
    return grain(rng, blend(joint, colour(rng, saturation=(0, 0.5)), colour(rng, saturation=(0, 0.2))), 0.25)


def spots(rng: Random) -> Bitmap:
    """Dots on a plain ground."""
    rows, columns = _axes()
    count = int(rng.choice([3, 4, 6]))
    inside = np.hypot(rows * count % 1 - 0.5, columns * count % 1 - 0.5) < rng.uniform(0.2, 0.42)
    return grain(rng, blend(inside, colour(rng), colour(rng)), 0.2)


def marble(rng: Random) -> Bitmap:
    """Veins on a pale ground."""
    rows, columns = _axes()
    veins = np.abs(np.sin(2 * np.pi * (rows * rng.integers(1, 4) + columns * rng.integers(1, 4)) + 6 * pink(rng, 1.8)))
    return blend(veins.astype(np.float32) ** 2, colour(rng, saturation=(0, 0.3)), colour(rng, saturation=(0, 0.3)))


def picture(rng: Random) -> Bitmap:
    """A poster: coloured rectangles and discs over clouds."""
    rows, columns = _axes()
    image = clouds(rng)
    for _ in range(rng.integers(3, 9)):
        y, x, radius = rng.random(), rng.random(), rng.uniform(0.06, 0.3)
        if rng.random() < 0.5:
            inside = np.hypot(rows - y, columns - x) < radius
        else:
            inside = (np.abs(rows - y) < radius) & (np.abs(columns - x) < radius * rng.uniform(0.4, 2))
        image[inside] = colour(rng)
    return image


def facade(rng: Random) -> Bitmap:
    """A storey or four of windows in a wall."""
    rows, columns = _axes()
    up, across = int(rng.choice([2, 4])), int(rng.choice([2, 4]))
    inside_y, inside_x = np.abs(rows * up % 1 - 0.5), np.abs(columns * across % 1 - 0.5)
    high, wide = rng.uniform(0.22, 0.36), rng.uniform(0.16, 0.36)
    window = (inside_y < high) & (inside_x < wide)
    frame = (inside_y < high + 0.05) & (inside_x < wide + 0.05) & ~window
    wall = grain(rng, blend(np.zeros((SIZE, SIZE), bool), colour(rng, value=(0.35, 0.85)), (0, 0, 0)), 0.3)
    wall[frame] = colour(rng, saturation=(0, 0.2))
    panes = np.floor(rows * up) * across + np.floor(columns * across)
    glass = np.asarray(colour(rng, (0.5, 0.68), (0.1, 0.4), (0.08, 0.3)))
    wall[window] = (glass * (0.6 + 0.8 * rng.random(up * across)[panes.astype(int)])[..., None])[window]
    return wall


def ground(rng: Random) -> Bitmap:
    """Grass, sand, earth, gravel or snow."""
    hue, saturation, value = [
        ((0.18, 0.36), (0.3, 0.7), (0.15, 0.5)),
        ((0.09, 0.13), (0.2, 0.5), (0.5, 0.8)),
        ((0.04, 0.1), (0.3, 0.6), (0.2, 0.45)),
        ((0.0, 1.0), (0.0, 0.1), (0.25, 0.55)),
        ((0.5, 0.6), (0.0, 0.06), (0.75, 0.92)),
    ][rng.integers(5)]
    first, second = colour(rng, hue, saturation, value), colour(rng, hue, saturation, value)
    return grain(rng, blend(pink(rng, 1.1), first, second), 0.8)


PATTERNS: tuple[Callable[[Random], Bitmap], ...] = (
    clouds,
    checker,
    stripes,
    bricks,
    planks,
    tiles,
    spots,
    marble,
    picture,
)


def pattern(rng: Random) -> Bitmap:
    """One of ``PATTERNS`` at random."""
    return PATTERNS[rng.integers(len(PATTERNS))](rng)
