"""The walks of the documents at a small size: a published teacher for one's own photographs, and depth of one's own.

The commands are those of ``dvc.yaml``, in DVC's order, run in one interpreter: starting one for each of them would take
most of the time.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dav2.data.images import encode_jpeg
from dav2.families.depth_anything.foreign import save_official
from dav2.families.depth_anything.model import build
from tests.conftest import PrefectServer, Project, clone

pytestmark = pytest.mark.timeout(1200)
SMALL = {"size": "vitn", "steps": 2, "batch": 4, "crop": 56, "input_size": 56}
CHECKPOINT = {"every_steps": 2, "evaluate_every": 2}
DRIVER = """
import os, runpy, sys
from dvc.repo import Repo
from flows.rebuild import stages
with Repo() as repo:
    commands = [(name, repo.stage.load_one(name=name).cmd) for name in stages()]
for name, line in commands:
    print("stage", name, flush=True)
    _, _, module, *words = line.split()
    sys.argv, os.environ["DVC_STAGE"] = [module, *words], name
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{line}: {end.code}")
"""


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with the sample's benchmarks, and published weights of a very small model."""
    project = clone(tmp_path_factory.mktemp("walks") / "dav2")
    (project.folder / "weights").mkdir()
    torch.manual_seed(0)
    save_official(build("vitn"), project.folder / "weights" / "published.pth")
    return project


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A soft picture of a few colours, uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def scale(project: Project, name: str, edit: Any) -> None:
    """``dav2 scale``, and then the edits that make it small."""
    project.run("dav2", "scale", name)
    path = project.folder / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    edit(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def repro(project: Project, server: PrefectServer) -> list[str]:
    """Every stage's command as ``dvc repro`` would run it; returns the stages."""
    told = project.run(sys.executable, "-c", DRIVER, **server.environment).stdout
    return re.findall(r"^stage (\S+)$", told, flags=re.MULTILINE)


def scores(project: Project, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "artifacts/scores" / f"{model}.json").read_text())
    return found


def test_a_student_of_ones_own_learns_from_a_published_teacher(walker: Project, prefect_server: PrefectServer) -> None:
    folder = walker.folder / "data" / "photographs" / "trip"
    folder.mkdir(parents=True)
    for number in range(24):
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(picture(number), 90))

    def edit(tree: dict[str, Any]) -> None:
        tree["students"]["mine"] |= {**SMALL, "checkpoint": CHECKPOINT, "start": "outside/published"}
        tree["pseudo_label"] |= {"input_size": 56}
        tree["outside"]["published"]["licence"] = "CC-BY-NC-4.0"
        tree["evaluate"] |= {"bootstrap": 20, "benchmarks": {}}
        tree["benchmarks"] = {"da2k": tree["benchmarks"]["da2k"]}
        tree["quality"]["pseudo"] = {"min_frames": 20}
        tree["register"] |= {"min_over_baseline": 0.0, "use": "commercial"}

    scale(walker, "student", edit)
    stages = repro(walker, prefect_server)
    assert stages.index("outside@published") < stages.index("teacher") < stages.index("pseudo_label")
    assert stages.index("outside@published") < stages.index("student@mine")
    assert scores(walker, "student-mine")["da2k"]["pairs"] > 0
    assert scores(walker, "teacher")["weights_sha256"] == origin(walker, "published")["weights_sha256"]
    lineage = walker.run("dav2", "lineage", "dav2-student-vitn").stdout
    assert "published (made elsewhere: weights/published.pth)" in lineage
    # The licence of the teacher's weights follows the student to its gate.
    refused = walker.run("dav2", "promote", "dav2-student-vitn", check=False)
    assert refused.returncode == 1 and "CC-BY-NC-4.0" in refused.stdout + refused.stderr
    assert "published" in (walker.folder / "reports/index.html").read_text()


def origin(project: Project, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "artifacts/outside" / name / "origin.json").read_text())
    return found


def write_rgbd(root: Path, part: str, scenes: int, first: int) -> None:
    """Frames with depth in millimetres, a floor that is nearer below."""
    floor = np.linspace(6000, 900, 60)[:, None] * np.ones((1, 80))
    for scene in range(scenes):
        for number in range(6):
            seed = first + 10 * scene + number
            for kind in ("rgb", "depth"):
                (root / part / f"s{scene}" / kind).mkdir(parents=True, exist_ok=True)
            depth = (floor * np.random.default_rng(seed).uniform(0.8, 1.2)).astype(np.uint16)
            (root / part / f"s{scene}" / "rgb" / f"{number}.jpg").write_bytes(encode_jpeg(picture(seed), 90))
            Image.fromarray(depth).save(root / part / f"s{scene}" / "depth" / f"{number}.png")


def test_a_metric_model_learns_from_depth_of_ones_own(walker: Project, prefect_server: PrefectServer) -> None:
    write_rgbd(walker.folder / "data/rgbd", "train", 4, 1000)
    write_rgbd(walker.folder / "data/rgbd", "test", 2, 2000)
    options = "{image: '{scene}/rgb/{frame}.jpg', depth: '{scene}/depth/{frame}.png'%s}"
    check = ("dav2", "data", "check", "pairs", "data/rgbd/train", "--show", "mine.jpg", "--options")
    wrong = walker.run(*check, options % "", check=False)
    assert wrong.returncode == 1 and "are these millimetres? then say unit: mm" in wrong.stderr
    assert "24 frames in 4 scenes" in walker.run(*check, options % ", unit: mm").stdout
    assert Image.open(walker.folder / "mine.jpg").size[0] > 300

    def edit(tree: dict[str, Any]) -> None:
        tree["metric"]["mine"] |= {**SMALL, "checkpoint": CHECKPOINT}
        tree["evaluate"] |= {"bootstrap": 20}
        tree["quality"]["real"] = {"min_frames": 10}

    scale(walker, "rgbd", edit)
    stages = repro(walker, prefect_server)
    assert {"ingest@rgbd", "validate@real", "metric@mine", "evaluate@metric-mine", "register"} <= set(stages)
    judged = scores(walker, "metric-mine")["benchmarks"]["rgbd"]
    assert judged["frames"] == 12 and np.isfinite(judged["metrics"]["abs_rel"])
    assert (walker.folder / "artifacts/shards/real/rgbd/manifest.parquet").is_file()
    refused = walker.run(sys.executable, "-c", TEACHER, check=False)
    assert "labels of real images" in refused.stderr or "real labels are coarse" in refused.stderr


TEACHER = """
import yaml
from dav2.params import Params
tree = yaml.safe_load(open("params.yaml").read())
recipe = {"size": "vitn", "sources": ["rgbd"], "steps": 1, "batch": 4}
Params.model_validate({**tree, "teacher": recipe})
"""
