"""Sky panoramas and sunlight by mood: the same place in the morning, under clouds, at sunset, at night."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scenes import textures
from dav2.scenes.scene import Light, Look
from dav2.scenes.textures import Bitmap, Colour, Random


class Mood(NamedTuple):
    """Linear colours of the zenith, the horizon and the sun; cloud cover 0…1; sun's elevation in degrees."""

    zenith: Colour
    horizon: Colour
    sun: Colour
    clouds: float
    elevation: tuple[float, float]


MOODS: dict[str, Mood] = {
    "clone": Mood((0.16, 0.33, 0.75), (0.65, 0.78, 0.92), (2.6, 2.4, 2.1), 0.35, (35, 65)),
    "morning": Mood((0.25, 0.4, 0.7), (0.95, 0.82, 0.65), (2.4, 1.9, 1.3), 0.3, (12, 25)),
    "sunset": Mood((0.2, 0.22, 0.42), (1.0, 0.5, 0.25), (2.2, 1.1, 0.5), 0.5, (4, 12)),
    "overcast": Mood((0.6, 0.62, 0.66), (0.75, 0.77, 0.8), (0.25, 0.25, 0.25), 1.0, (40, 70)),
    "fog": Mood((0.6, 0.62, 0.65), (0.7, 0.71, 0.73), (0.3, 0.3, 0.3), 0.9, (30, 60)),
    "rain": Mood((0.3, 0.33, 0.38), (0.45, 0.48, 0.52), (0.15, 0.15, 0.15), 1.0, (40, 70)),
    "night": Mood((0.01, 0.015, 0.04), (0.05, 0.055, 0.09), (0.12, 0.14, 0.2), 0.4, (30, 60)),
}


def panorama(rng: Random, mood: Mood, height: int = 64) -> Bitmap:
    """(H, 2H, 3) linear sky; below the horizon a dull ground, seen only through gaps."""
    elevation: NDArray[np.float32] = np.linspace(90, -90, height, dtype=np.float32)[:, None]
    share = np.asarray(np.clip(1 - elevation / 90, 0, 1) ** 3, np.float32)
    base = textures.blend(np.repeat(share, 2 * height, axis=1), mood.zenith, mood.horizon)
    cover = textures.pink(rng, 1.5)[: height // 2, :]
    cover = np.clip((cover - (1 - mood.clouds) * 0.75) * 3, 0, 1)
    cover = np.concatenate([cover, np.zeros((height - height // 2, cover.shape[1]), np.float32)])
    white = float(np.mean(mood.horizon)) * 1.15
    sky = base * (1 - 0.8 * cover[..., None]) + 0.8 * cover[..., None] * white * np.array([1, 1, 1.02], np.float32)
    below = (elevation < 0)[..., None]
    return np.where(below, np.float32(0.35) * np.asarray(mood.horizon, np.float32), sky).astype(np.float32)


def sunlight(rng: Random, mood: Mood) -> Light:
    """Parallel light from a random compass direction at the mood's elevation."""
    elevation, azimuth = np.radians(rng.uniform(*mood.elevation)), rng.uniform(0, 2 * np.pi)
    towards = -np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    return Light((float(towards[0]), float(towards[1]), float(towards[2])), mood.sun, sun=True)


def look(rng: Random, name: str) -> Look:
    """Air of the mood: a little haze on clear days, fog, rain, darkness."""
    mood = MOODS[name]
    if name == "fog":
        density = float(rng.uniform(0.02, 0.06))
        return Look(haze=mood.horizon, density=(density,) * 3)
    if name == "rain":
        return Look(haze=mood.horizon, density=(0.008,) * 3, exposure=0.75, style=("rain",))
    if name == "night":
        return Look(haze=mood.horizon, density=(0.004,) * 3, exposure=0.3, tint=(0.75, 0.85, 1.25), style=("grain",))
    density = float(rng.uniform(0.0005, 0.004))
    return Look(haze=mood.horizon, density=(density, density * 1.1, density * 1.25))
