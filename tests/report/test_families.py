"""The section that lays families side by side."""

from __future__ import annotations

import json
from pathlib import Path

from dav2 import layout
from dav2.documents import ScoreFile
from dav2.params import load
from dav2.report.families import ceilings, side_by_side
from dav2.report.gather import Gathered
from dav2.report.page import environment
from tests.families.marigold.test_runs import CODEC, RUN
from tests.training.world import make_project


def score(model: str, quantity: str, error: float, **more: object) -> ScoreFile:
    metrics = {"abs_rel": error, "boundary_f1": error / 2}
    plain = {"model": model, "quantity": quantity, "parameters": 7, "benchmarks": {"relative": {"metrics": metrics}}}
    return ScoreFile.model_validate({**plain, **more})


def test_relative_models_of_both_families_stand_in_one_table(tmp_path: Path) -> None:
    benchmarks = {"relative": {"source": "da2k", "protocol": "marigold-nyu"}}
    evaluate = {"da2k": "da2k", "models": ["teacher", "marigold-noise"], "benchmarks": benchmarks}
    params = load(make_project(tmp_path, codecs={"patch": CODEC}, marigold={"noise": RUN}, evaluate=evaluate))
    files = [
        score("teacher", "disparity", 0.2),
        score("marigold-noise", "depth", 0.3, steps=4, ensemble=10),
        score("metric-near", "metres", 0.1),
        score("baseline-row", "disparity", 0.4),
        score("marigold-normals", "normals", 0.1),
        score("baseline-facing", "normals", 0.1),
    ]
    scores = {each.model: each for each in files}
    gathered = Gathered(scores=scores, trainings=[], data=[], labels=[], gates=[])
    found = side_by_side(gathered, params)
    assert found is not None
    assert gathered.relative == ["teacher", "marigold-noise"], "neither metres nor layers are relative depth"
    assert [(row.model, row.family, row.passes) for row in found["rows"]] == [
        ("teacher", "depth_anything", ""),
        ("marigold-noise", "marigold", "4 × 10"),
        ("baseline-row", "", ""),
    ]
    alone = Gathered(scores={"teacher": scores["teacher"]}, trainings=[], data=[], labels=[], gates=[])
    assert side_by_side(alone, params) is None

    folder = layout.codec(tmp_path, "patch")
    folder.mkdir(parents=True)
    row = {"source": "rooms", "frames": 2, "abs_rel": 0.05, "delta1": 0.9, "target_abs_rel": 0.01}
    document = {"kind": "patch", "target": "depth", "rows": [{**row, "depth_mae": 0.02, "psnr": 27.0}]}
    (folder / "ceiling.json").write_text(json.dumps(document))
    page = environment().get_template("families.html").render(sides=found, ceilings=ceilings(params, tmp_path))
    for shown in (
        "marigold-noise",
        "4 × 10",
        "0.300",
        "0.150",
        "marigold-nyu",
        "Ceiling of codec patch",
        "0.050",
        "27.0",
    ):
        assert shown in page

    layers = {"source": "rooms", "frames": 2, "mean": 4.7, "below_30": 0.95, "psnr": 31.1}
    (folder / "ceiling.json").write_text(json.dumps({"kind": "patch", "target": "normals", "rows": [layers]}))
    page = environment().get_template("families.html").render(sides=found, ceilings=ceilings(params, tmp_path))
    assert "below 30" in page and "4.700" in page and "31.1" in page and "AbsRel without codec" not in page
