"""The walks of the documents, copied word for word into a shell: in the finished pipeline, and from a fresh clone.

What a walk needs beside its commands (photographs, somebody's weights, settings that make it small) is laid out before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dav2
from dav2.data.images import encode_jpeg
from dav2.families.depth_anything.foreign import save_official
from dav2.families.depth_anything.model import build
from tests.conftest import ROOT, PrefectServer, Project
from tests.pages import Block, walk

pytestmark = pytest.mark.timeout(1200)
SMALL = {"size": "vitn", "steps": 2, "batch": 4, "crop": 56, "input_size": 56}
CHECKPOINT = {"every_steps": 2, "evaluate_every": 2}
AUTHOR = {f"GIT_{who}_{what}": "walker@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def home(project: Project) -> Path:
    """The home folder of who walks."""
    return project.folder.parent / "home"


def copied(project: Project, blocks: list[Block], **environment: str) -> str:
    """Copy blocks into a shell (or Python) of the project's folder, up to one that fails; returns what they print."""
    own = {**AUTHOR, "HOME": str(home(project)), "MPLCONFIGDIR": matplotlib.get_configdir(), **environment}
    own["PYTHONPATH"] = f"{Path(__file__).parent / 'inside'}:{project.folder}"
    home(project).mkdir(exist_ok=True)
    said = ""
    for block in blocks:
        program = (sys.executable, "-c") if block.language == "python" else ("bash", "-euo", "pipefail", "-c")
        said += project.run(*program, block.walked, **own).stdout
    return said


def installed(project: Project) -> None:
    """As ``make`` would leave it: this environment, newer than what asks for it."""
    (project.folder / ".venv").symlink_to(sys.prefix)
    for name in ("requirements.lock", "pyproject.toml"):
        os.utime(project.folder / name, (0, 0))


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A soft picture of a few colours, uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(picture(number), 90))


def scores(project: Project, model: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "artifacts/scores" / f"{model}.json").read_text())
    return found


# ------------------------------------------------------------------------------------------- in the finished pipeline


def test_predict(project: Project, rebuilt: str) -> None:
    write_pictures(project.folder / "photos", 2)
    for name in ("photo", "room"):
        shutil.copy(project.folder / "photos/0.jpg", project.folder / f"{name}.jpg")
    (project.folder / "large.jpg").write_bytes(encode_jpeg(picture(2, 800, 1100), 90))
    seen = dav2.infer(project.folder / "room.jpg", project.folder / "artifacts/models/student-vitt").values
    known = np.zeros(seen.shape, np.uint16)  # depths in millimetres that do not contradict the map
    known[::7, ::9] = (1000 / (0.25 + (seen - seen.min()) / np.ptp(seen)))[::7, ::9]
    Image.fromarray(known).save(project.folder / "known.png")
    copied(project, walk("predict"))
    made = {path.name for path in (project.folder / "maps").iterdir()}
    assert made == {f"{number}_{end}" for number in (0, 1) for end in ("depth.png", "depth.npy", "side.png")}
    for name in ("student.pth", "photo_depth.png", "photo_color.png"):
        assert (project.folder / name).is_file()
    assert list(project.folder.rglob("large_depth.png")) and list(project.folder.rglob("room_depth.npy"))
    assert list(project.folder.rglob("room.ply")) and list(project.folder.rglob("photo_depth.npy"))


def test_the_referee(project: Project, rebuilt: str) -> None:
    shutil.rmtree(project.folder / "maps", ignore_errors=True)
    said = copied(project, walk("referee"))
    assert "theirs against student-vitt" in said and "by A. Nother" in said
    assert (project.folder / "reports/protocols/theirs.html").is_file()


def test_what_a_finished_pipeline_answers(project: Project, rebuilt: str) -> None:
    said = copied(project, walk("finished"))
    assert "dav2-student-vitt" in said and "hypersim" in said


# ------------------------------------------------------------------------------------------------ from a fresh clone


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with nothing pulled, and the published weights of a very small model at home."""
    project = Project(tmp_path_factory.mktemp("walks") / "dav2")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project.folder)], check=True)
    installed(project)
    home(project).mkdir()
    torch.manual_seed(0)
    save_official(build("vitn"), home(project) / "depth_anything_v2_vits.pth")
    return project


def make_small(project: Project, scale: str, edit: Any) -> None:
    """Edit what ``dav2 scale`` will write."""
    path = project.folder / "infra/scales" / f"{scale}.yaml"
    tree = yaml.safe_load(path.read_text())
    edit(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def stages(said: str) -> list[str]:
    """The stages for which ``make repro`` printed a line."""
    return re.findall(r"^stage +\d+ of \d+  (\S+)", said, flags=re.MULTILINE)


def test_a_student_of_ones_own_learns_from_a_published_teacher(walker: Project, prefect_server: PrefectServer) -> None:
    def edit(tree: dict[str, Any]) -> None:
        tree["students"]["mine"] |= {**SMALL, "checkpoint": CHECKPOINT, "start": "outside/published"}
        tree["pseudo_label"] |= {"input_size": 56}
        tree["outside"]["published"]["licence"] = "CC-BY-NC-4.0"
        tree["evaluate"] |= {"bootstrap": 20, "benchmarks": {}}
        tree["benchmarks"] = {"da2k": tree["benchmarks"]["da2k"]}
        tree["quality"]["pseudo"] = {"min_frames": 20}
        tree["register"] |= {"min_over_baseline": 0.0, "use": "commercial"}

    make_small(walker, "student", edit)
    write_pictures(home(walker) / "photographs", 24)
    five, *short = walk("student")
    ran = stages(copied(walker, [five], **prefect_server.environment))
    assert ran.index("outside@published") < ran.index("teacher") < ran.index("pseudo_label")
    assert ran.index("outside@published") < ran.index("student@mine")
    assert scores(walker, "student-mine")["da2k"]["pairs"] > 0
    origin = json.loads((walker.folder / "artifacts/outside/published/origin.json").read_text())
    assert scores(walker, "teacher")["weights_sha256"] == origin["weights_sha256"]
    lineage = walker.run("dav2", "lineage", "dav2-student-vitn").stdout
    assert "published (made elsewhere: weights/published.pth)" in lineage
    # The licence of the teacher's weights follows the student to its gate.
    refused = walker.run("dav2", "promote", "dav2-student-vitn", check=False)
    assert refused.returncode == 1 and "CC-BY-NC-4.0" in refused.stdout + refused.stderr
    assert "published" in (walker.folder / "reports/index.html").read_text()
    copied(walker, short)


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
    def edit(tree: dict[str, Any]) -> None:
        tree["metric"]["mine"] |= {**SMALL, "checkpoint": CHECKPOINT}
        tree["evaluate"] |= {"bootstrap": 20}
        tree["quality"]["real"] = {"min_frames": 10}

    make_small(walker, "rgbd", edit)
    write_rgbd(home(walker) / "mine", "train", 4, 1000)
    write_rgbd(home(walker) / "mine", "test", 2, 2000)
    six, *short = walk("rgbd")
    said = copied(walker, [six], **prefect_server.environment)
    assert "24 frames in 4 scenes" in said
    assert Image.open(walker.folder / "mine.jpg").size[0] > 300
    assert {"ingest@rgbd", "validate@real", "metric@mine", "evaluate@metric-mine", "register"} <= set(stages(said))
    judged = scores(walker, "metric-mine")["benchmarks"]["rgbd"]
    assert judged["frames"] == 12 and np.isfinite(judged["metrics"]["abs_rel"])
    assert (walker.folder / "artifacts/shards/real/rgbd/manifest.parquet").is_file()
    options = "{image: '{scene}/rgb/{frame}.jpg', depth: '{scene}/depth/{frame}.png'}"
    wrong = walker.run("dav2", "data", "check", "pairs", "own/rgbd/train", "--options", options, check=False)
    assert wrong.returncode == 1 and "are these millimetres? then say unit: mm" in wrong.stderr
    refused = walker.run(sys.executable, "-c", TEACHER, check=False)
    assert "labels of real images" in refused.stderr or "real labels are coarse" in refused.stderr
    copied(walker, short)


TEACHER = """
import yaml
from dav2.params import Params
tree = yaml.safe_load(open("params.yaml").read())
recipe = {"size": "vitn", "sources": ["rgbd"], "steps": 1, "batch": 4}
Params.model_validate({**tree, "teacher": recipe})
"""
