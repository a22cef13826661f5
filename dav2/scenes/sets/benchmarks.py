"""The test sets: DA-2K with its eight kinds, NYU-style rooms, KITTI-style streets. Their scenes are in no other set."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from dav2.scenes.capture import Camera
from dav2.scenes.kinds import KINDS, indoor, outdoor
from dav2.scenes.layouts import da2k, files, kitti, nyu
from dav2.scenes.layouts.da2k import Pair
from dav2.scenes.pairs import draw_pairs
from dav2.scenes.sets.plan import Job, SampleSet, Scale, shoot
from dav2.scenes.stand import Lens


class Da2k(SampleSet):
    """Pictures of the eight kinds with point pairs."""

    name = "da2k"
    index = da2k.ANNOTATIONS
    pairs_per_picture = 6
    waiting = "DA-2K/.pairs"

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """One picture to a job, of every kind in turn."""
        size, pictures, kinds = ((96, 72), 1, 2) if scale == "tiny" else ((320, 240), 11, len(KINDS))
        lens = Lens(*size, (45.0, 80.0))
        return [Job(self.name, 100 * n + kind, seed, 1, lens) for n in range(pictures) for kind in range(kinds)]

    def place(self, job: Job) -> tuple[str, str]:
        """Kind of scene, and the picture's name."""
        return list(KINDS)[job.number % 100], f"{job.number // 100:04d}"

    def marker(self, job: Job) -> str:
        return f"{self.waiting}/{'-'.join(self.place(job))}.json"

    def render(self, job: Job, root: Path) -> None:
        """The picture, and its pairs in a file of their own until all are there."""
        rng, (kind, name) = job.rng(), self.place(job)
        (capture,) = shoot(KINDS[kind](rng), job, rng)
        key = da2k.write_image(root, kind, name, capture.rgb)
        pairs = draw_pairs(capture, rng, self.pairs_per_picture)
        files.write(root / self.marker(job), json.dumps([key, pairs]).encode())

    def finish(self, jobs: list[Job], root: Path) -> None:
        """One file of annotations out of the pairs of all pictures."""
        pairs = {}
        for job in jobs:
            key, listed = json.loads((root / self.marker(job)).read_bytes())
            pairs[key] = [Pair(tuple(near), tuple(far)) for near, far in listed]
        da2k.write_annotations(root, pairs)
        shutil.rmtree(root / self.waiting)


class Nyu(SampleSet):
    """Rooms at 640 × 480."""

    name = "nyu"
    scene_types = ("bedroom", "kitchen", "living_room", "office")

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Rooms through the lens of the sensor: 640 × 480 pixels, a focal length of 518.86."""
        count = 1 if scale == "tiny" else 8
        fov = math.degrees(2 * math.atan(640 / 2 / 518.86))
        return [Job(self.name, number, seed, 1, Lens(640, 480, (fov, fov))) for number in range(count)]

    def marker(self, job: Job) -> str:
        folder = f"official_splits/test/{self.scene_types[job.number % 4]}"
        return f"{folder}/sync_depth_{job.number:05d}.png"

    def render(self, job: Job, root: Path) -> None:
        """The picture and its depth, in the folders of the official test split."""
        rng = job.rng()
        (capture,) = shoot(indoor.build(rng), job, rng)
        nyu.write_frame(root, self.scene_types[job.number % 4], job.number, capture)


class Kitti(SampleSet):
    """Streets at 1242 × 375 with sparse depth."""

    name = "kitti"
    index = kitti.SPLIT_LIST
    date = "2011_09_26"
    focal = 721.5377

    def jobs(self, seed: int, scale: Scale) -> list[Job]:
        """Streets through the lens of the left colour camera: 1242 × 375 pixels, a focal length of 721.54."""
        count = 1 if scale == "tiny" else 8
        fov = math.degrees(2 * math.atan(1242 / 2 / self.focal))
        return [Job(self.name, number, seed, 1, Lens(1242, 375, (fov, fov), roll=0.5)) for number in range(count)]

    def drive(self, job: Job) -> kitti.Drive:
        """The recording that a job stands for; each has one of its own."""
        return kitti.Drive(self.date, f"{self.date}_drive_{2 + job.number:04d}")

    def marker(self, job: Job) -> str:
        folder = f"data_depth_annotated/val/{self.drive(job).name}_sync/proj_depth/groundtruth/image_02"
        return f"{folder}/{5:010d}.png"

    def render(self, job: Job, root: Path) -> None:
        """The fifth picture of a recording, and the depth of its scan."""
        rng = job.rng()
        (capture,) = shoot(outdoor.drive(rng), job, rng)
        kitti.write_frame(root, self.drive(job), 5, capture, seed=job.number)

    def finish(self, jobs: list[Job], root: Path) -> None:
        """The list of the split, and the calibration of the day."""
        lens = jobs[0].lens
        camera = Camera.with_fov(lens.width, lens.height, lens.fov[0])
        kitti.write_lists(root, [(self.drive(job), 5) for job in jobs], {self.date: camera})


SETS: dict[str, SampleSet] = {made.name: made for made in (Da2k(), Nyu(), Kitti())}
