"""``Job``: one scene with its cameras, rendered and written as a whole; ``SampleSet``: the jobs of one data set."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dav2.scenes.capture import Camera, Capture
from dav2.scenes.render import Renderer
from dav2.scenes.scene import Scene
from dav2.scenes.stand import Lens, stand
from dav2.scenes.textures import Random

Scale = Literal["tiny", "small", "large"]
"""``small`` is the sample; ``large`` has five times as many scenes in some of the training sets."""
SCALES: tuple[Scale, ...] = get_args(Scale)
SAMPLES = 4


@dataclass(frozen=True)
class Job:
    """A scene of a set.

    Attributes:
        set: name of the set, also its folder.
        number: of the scene within the set, from 0.
        seed: of the whole sample.
        frames: pictures to take.
        lens: how to take them.
    """

    set: str
    number: int
    seed: int
    frames: int
    lens: Lens

    def rng(self) -> Random:
        """The job's own stream of random numbers: a function of seed, set and number."""
        return np.random.default_rng([self.seed, zlib.crc32(self.set.encode()), self.number])


class SampleSet(ABC):
    """A data set of the sample: ``root`` is its own folder, ``data/<name>``.

    Attributes:
        name: of the set.
        index: the file, relative to the root, that ``finish`` writes last; where it exists, the set is whole.
        in_sample: whether it is made where no set is named.
    """

    name: str
    index: str | None = None
    in_sample: bool = True

    @abstractmethod
    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """All jobs, in order."""

    @abstractmethod
    def marker(self, job: Job) -> str:
        """The file, relative to the root, that a job writes last: where it exists, the job is done."""

    @abstractmethod
    def render(self, job: Job, root: Path) -> None:
        """Do one job."""

    def finish(self, jobs: list[Job], root: Path) -> None:  # noqa: B027
        """Write what describes all jobs together, when they are done; most sets have nothing of the kind."""


def shoot(scene: Scene, job: Job, rng: Random, *, keep_radiance: bool = False, layers: bool = False) -> list[Capture]:
    """Take the job's pictures of ``scene``, each from a place of its own."""
    renderer = Renderer(scene)
    cameras: list[Camera] = [stand(scene, renderer, job.lens, rng) for _ in range(job.frames)]
    seeds = rng.integers(2**31, size=job.frames)
    return [
        renderer.capture(camera, SAMPLES, int(seed), keep_radiance=keep_radiance, layers=layers)
        for camera, seed in zip(cameras, seeds, strict=True)
    ]
