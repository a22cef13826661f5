from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dav2.scenes.kinds import KINDS
from dav2.scenes.make import make
from dav2.scenes.sets import SETS
from dav2.scenes.sets.plan import SCALES


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_stopped_rendering_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    chosen = ["hypersim", "da2k"]
    make(tmp_path / "whole", 0, "tiny", chosen, workers=1)
    whole = digests(tmp_path / "whole")
    make(tmp_path / "stopped", 0, "tiny", ["hypersim"], workers=1)
    # As if killed between two frames: the job's last file and the tables are missing.
    stopped = tmp_path / "stopped/hypersim"
    (stopped / SETS["hypersim"].marker(SETS["hypersim"].jobs(0, "tiny")[1])).unlink()
    (stopped / "metadata_images_split_scene_v1.csv").unlink()
    reports: list[tuple[str, int, int]] = []
    make(tmp_path / "stopped", 0, "tiny", chosen, workers=1, progress=lambda *report: reports.append(report))
    assert reports[0] == ("hypersim", 1, 2)
    assert digests(tmp_path / "stopped") == whole
    annotations = json.loads((tmp_path / "whole/da2k/DA-2K/annotations.json").read_text())
    assert {key.split("/")[1] for key in annotations} <= set(KINDS)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob(".pairs"))


def test_a_finished_set_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, 0, "tiny", ["irs"], workers=1)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.exr")}
    make(tmp_path, 0, "tiny", ["irs"], workers=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.exr")} == times
    assert len(times) == 2


def test_an_unknown_set_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sample set 'nuscenes'; there are hypersim"):
        make(tmp_path, 0, "tiny", ["nuscenes"])


@pytest.mark.parametrize("name", sorted(SETS))
def test_no_two_jobs_of_a_set_write_the_same_file(name: str) -> None:
    for scale in SCALES:
        jobs = SETS[name].jobs(0, scale)
        assert len({SETS[name].marker(job) for job in jobs}) == len(jobs)
        assert len({job.rng().random() for job in jobs}) == len(jobs)
