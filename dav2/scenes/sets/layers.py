"""Sets with everything that pictures are made of: normals, reflectance, light, residual, roughness, metallicity.

They take far more bytes than depth does and are no part of the sample: they are made when they are named.
"""

from __future__ import annotations

from pathlib import Path

from dav2.scenes.kinds import indoor, others
from dav2.scenes.layouts import hypersim, interiorverse
from dav2.scenes.sets.plan import Job, SampleSet, Scale, shoot
from dav2.scenes.sets.training import Hypersim
from dav2.scenes.stand import Lens

BUILDS = (indoor.build, indoor.build, others.transparent_indoors)
"""Rooms alone: every pixel shows a surface, as the published filters want."""


def _sizes(scale: Scale) -> tuple[tuple[int, int], int, int]:
    """(width, height), scenes, frames."""
    return {"tiny": ((64, 48), 2, 1), "small": ((128, 96), 24, 2), "large": ((256, 192), 60, 4)}[scale]


class HypersimLayers(Hypersim):
    """Rooms in Hypersim's layout, with the layers of every frame. Every third scene has another focal length."""

    name = "hypersim_layers"
    in_sample = False

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Rooms at 60°, 48° and 75° in turn."""
        size, scenes, frames = _sizes(scale)
        fovs = (60.0, 48.0, 75.0)
        return [Job(self.name, number, seed, frames, Lens(*size, (fovs[number % 3],) * 2)) for number in range(scenes)]

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a room with all their layers."""
        rng = job.rng()
        captures = shoot(BUILDS[job.number % 3](rng), job, rng, layers=True)
        name = self.scene_name(job)
        for frame, capture in enumerate(captures):
            hypersim.write_frame(root, name, "cam_00", frame, capture)
        hypersim.write_scene(root, name, {"cam_00": [capture.camera for capture in captures]})


class InteriorVerse(SampleSet):
    """Rooms in InteriorVerse's layout, seen at 85°."""

    name = "interiorverse"
    index = f"{interiorverse.FOLDER}/test.txt"
    in_sample = False

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Rooms at 85°."""
        size, scenes, frames = _sizes(scale)
        return [Job(self.name, number, seed, frames, Lens(*size, (85.0, 85.0))) for number in range(scenes)]

    def scene_name(self, job: Job) -> str:
        """Name of a job's folder."""
        return f"L3D{job.number:05d}"

    def marker(self, job: Job) -> str:
        return f"{interiorverse.FOLDER}/{self.scene_name(job)}/{job.frames - 1:03d}_mask.exr"

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a room with all their layers."""
        rng = job.rng()
        for frame, capture in enumerate(shoot(BUILDS[job.number % 3](rng), job, rng, layers=True)):
            interiorverse.write_frame(root, self.scene_name(job), frame, capture)

    def finish(self, jobs: list[Job], root: Path) -> None:
        """Lists of the splits: of ten scenes the ninth validates and the tenth tests."""
        splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for job in jobs:
            split = {8: "val", 9: "test"}.get(job.number % 10, "train")
            splits[split].append(self.scene_name(job))
        interiorverse.write_lists(root, splits)
