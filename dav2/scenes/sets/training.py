"""The training sets: five synthetic RGB-D sets in their public layouts, and pictures alone for pseudo-labelling."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from dav2.scenes.capture import Camera
from dav2.scenes.kinds import KINDS, indoor, others, outdoor
from dav2.scenes.layouts import blendedmvs, hypersim, image_folder, irs, tartanair, vkitti2
from dav2.scenes.sets.plan import Job, SampleSet, Scale, shoot
from dav2.scenes.stand import Lens


class Hypersim(SampleSet):
    """Rooms and things in rooms. Every third scene has another focal length, every sixth a tilted image plane."""

    name = "hypersim"
    index = hypersim.SPLIT_TABLE

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Rooms at 60°, 48° and 75° in turn, every sixth through a tilted image plane."""
        size, scenes, frames = ((64, 48), 2, 1) if scale == "tiny" else ((256, 192), 28, 4)
        scenes = 56 if scale == "large" else scenes
        jobs = []
        for number in range(scenes):
            fov = (60.0, 48.0, 75.0)[number % 3]
            tilt = (7.0, -4.0) if number % 6 == 1 else (0.0, 0.0)
            jobs.append(Job(self.name, number, seed, frames, Lens(*size, (fov, fov), tilt=tilt)))
        return jobs

    def scene_name(self, job: Job) -> str:
        """Name of a job's folder, as ``ai_VVV_NNN``."""
        return f"ai_{1 + job.number // 10:03d}_{1 + job.number % 10:03d}"

    def marker(self, job: Job) -> str:
        return f"{self.scene_name(job)}/_detail/metadata_scene.csv"

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a room; the very first of all keeps its radiance."""
        rng = job.rng()
        build = (indoor.build, indoor.build, others.objects, others.transparent_indoors)[job.number % 4]
        captures = shoot(build(rng), job, rng, keep_radiance=job.number == 0)
        name = self.scene_name(job)
        for frame, capture in enumerate(captures):
            kept = capture if frame == 0 else replace(capture, radiance=None)
            hypersim.write_frame(root, name, "cam_00", frame, kept)
        hypersim.write_scene(root, name, {"cam_00": [capture.camera for capture in captures]})

    def finish(self, jobs: list[Job], root: Path) -> None:
        """The tables of cameras and of the split: every tenth scene validates."""
        cameras = {self.scene_name(job): _lens_camera(job.lens) for job in jobs}
        rows = [
            hypersim.Row(self.scene_name(job), "cam_00", frame, "val" if job.number % 10 == 9 else "train")
            for job in jobs
            for frame in range(job.frames)
        ]
        hypersim.write_tables(root, cameras, rows)


class VirtualKitti2(SampleSet):
    """Streets, parks and hills in the set's ten variations; wide pictures from the height of a car's roof."""

    name = "vkitti2"
    scenes = ("Scene01", "Scene02", "Scene06", "Scene18", "Scene20")
    variations = ("clone", "15-deg-left", "15-deg-right", "fog", "morning", "overcast", "rain", "sunset")
    turned = ("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right")

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Every scene in every variation."""
        fov = math.degrees(2 * math.atan(1242 / 2 / 725.0087))
        size, scenes, variations, frames = ((124, 38), 2, 1, 1) if scale == "tiny" else ((312, 94), 5, 8, 3)
        frames = 6 if scale == "large" else frames
        lens = Lens(*size, (fov, fov), roll=0.5)
        return [Job(self.name, 100 * s + v, seed, frames, lens) for s in range(scenes) for v in range(variations)]

    def place(self, job: Job) -> tuple[str, str]:
        """Scene and variation."""
        return self.scenes[job.number // 100], self.variations[job.number % 100]

    def marker(self, job: Job) -> str:
        return "/".join((*self.place(job), "intrinsic.txt"))

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a scene in one variation, and their intrinsics."""
        rng = job.rng()
        scene, variation = self.place(job)
        mood = "clone" if variation in self.turned else variation
        captures = shoot(outdoor.build(rng, mood), job, rng)
        for frame, capture in enumerate(captures):
            vkitti2.write_frame(root, scene, variation, frame, capture)
        vkitti2.write_text(root, scene, variation, [capture.camera for capture in captures])


class TartanAir(SampleSet):
    """Environments of every kind, seen at 90°."""

    name = "tartanair"
    environments: ClassVar = {
        "neighborhood": "outdoor",
        "office": "indoor",
        "ocean": "underwater",
        "abandonedfactory_night": "adverse_style",
        "seasonsforest": "outdoor",
        "endofworld": "non_real",
        "oldtown": "aerial",
        "hospital": "transparent_reflective",
        "soulcity": "adverse_style",
        "westerndesert": "outdoor",
    }

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """So many paths through every environment."""
        size, paths, frames = {
            "tiny": ((64, 48), 1, 1), "small": ((176, 132), 3, 1), "large": ((176, 132), 40, 2)
        }[scale]  # fmt: skip
        environments = 2 if scale == "tiny" else len(self.environments)
        lens = Lens(*size, (90.0, 90.0))
        return [
            Job(self.name, 100 * path + e, seed, frames, lens) for path in range(paths) for e in range(environments)
        ]

    def place(self, job: Job) -> tuple[str, str, str]:
        """Environment, level and path."""
        environment = list(self.environments)[job.number % 100]
        return environment, ("Easy", "Hard")[job.number // 100 % 2], f"P{job.number // 100:03d}"

    def marker(self, job: Job) -> str:
        return "/".join((*self.place(job), "pose_left.txt"))

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a path, and their poses."""
        rng, place = job.rng(), self.place(job)
        captures = shoot(KINDS[self.environments[place[0]]](rng), job, rng)
        for frame, capture in enumerate(captures):
            tartanair.write_frame(root, *place, frame, capture)
        tartanair.write_poses(root, *place, [capture.camera for capture in captures])


class Irs(SampleSet):
    """Homes, offices, restaurants and stores."""

    name = "irs"
    index = "lists/irs_test.list"
    categories = ("Home", "Office", "Restaurant", "Store")

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Scenes of the four categories in turn."""
        size, scenes, frames = ((64, 36), 2, 1) if scale == "tiny" else ((224, 126), 9, 4)
        scenes = 18 if scale == "large" else scenes
        lens = Lens(*size, (90.0, 90.0))
        return [Job(self.name, number, seed, frames, lens) for number in range(scenes)]

    def place(self, job: Job) -> tuple[str, str]:
        """Category and scene."""
        category = self.categories[job.number % 4]
        return category, f"{category}Scene{1 + job.number // 4:03d}"

    def marker(self, job: Job) -> str:
        return "IRSDataset/" + "/".join((*self.place(job), f"d_{job.frames:05d}.exr"))

    def render(self, job: Job, root: Path) -> None:
        """The left pictures of a scene and their disparities, from 1."""
        rng = job.rng()
        build = (indoor.build, indoor.build, others.transparent_indoors, others.objects)[job.number // 3 % 4]
        for frame, capture in enumerate(shoot(build(rng), job, rng), start=1):
            irs.write_frame(root, *self.place(job), frame, capture)

    def finish(self, jobs: list[Job], root: Path) -> None:
        """The lists of training and test."""
        irs.write_lists(root, [(*self.place(job), frame) for job in jobs for frame in range(1, job.frames + 1)])


class BlendedMvs(SampleSet):
    """Things and places circled by a camera; the unit of length differs from scene to scene."""

    name = "blendedmvs"
    # The first is one of the set's seven official validation scenes.
    validation = "5b7a3890fc8fcf6781e2593a"

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Scenes of three kinds in turn."""
        size, scenes, frames = ((64, 48), 2, 1) if scale == "tiny" else ((160, 120), 10, 3)
        scenes = 40 if scale == "large" else scenes
        return [Job(self.name, number, seed, frames, Lens(*size, (45.0, 70.0))) for number in range(scenes)]

    def scene_name(self, job: Job) -> str:
        """24 hex digits; the first scene is one that validates officially."""
        if job.number == 0:
            return self.validation
        return "5d" + hashlib.sha256(f"scene {job.number}".encode()).hexdigest()[:22]

    def marker(self, job: Job) -> str:
        return f"{self.scene_name(job)}/cams/pair.txt"

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a scene, in a unit of length of its own."""
        rng = job.rng()
        build = (others.objects, others.aerial, outdoor.build)[job.number % 3]
        unit = float(rng.uniform(0.2, 5))
        captures = shoot(build(rng), job, rng)
        for frame, capture in enumerate(captures):
            blendedmvs.write_frame(root, self.scene_name(job), frame, capture, unit)
        blendedmvs.write_pairs(root, self.scene_name(job), len(captures))


class Views(SampleSet):
    """Pictures of all kinds without depth, in place of photographs."""

    name = "views"

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Scenes of every kind."""
        size, scenes, frames = ((64, 48), 1, 1) if scale == "tiny" else ((256, 192), 15, 2)
        kinds = 2 if scale == "tiny" else len(KINDS)
        lens = Lens(*size, (45.0, 85.0))
        return [Job(self.name, 100 * s + kind, seed, frames, lens) for s in range(scenes) for kind in range(kinds)]

    def place(self, job: Job, frame: int) -> tuple[str, str]:
        """Kind of scene, and the name of one of its pictures."""
        return list(KINDS)[job.number % 100], f"{job.number // 100:03d}_{frame}"

    def marker(self, job: Job) -> str:
        return "/".join(self.place(job, job.frames - 1)) + ".jpg"

    def render(self, job: Job, root: Path) -> None:
        """The pictures of a scene, and nothing else."""
        rng = job.rng()
        for frame, capture in enumerate(shoot(KINDS[self.place(job, 0)[0]](rng), job, rng)):
            image_folder.write_image(root, *self.place(job, frame), capture.rgb)


def _lens_camera(lens: Lens) -> Camera:
    return Camera.with_fov(lens.width, lens.height, lens.fov[0], tilt=lens.tilt_matrix())


SETS: dict[str, SampleSet] = {
    made.name: made for made in (Hypersim(), VirtualKitti2(), TartanAir(), Irs(), BlendedMvs(), Views())
}
