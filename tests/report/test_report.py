"""The report: one page that stands alone, numbers that DVC can read, nothing hidden."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dav2 import layout
from dav2.documents import ScoreFile
from dav2.pictures import coloured
from dav2.report import write_report
from dav2.report.charts import Dot, curve, dots
from dav2.report.pictures import SIDE, marked_pairs
from dav2.scores.da2k import Pair
from tests.evaluation.conftest import tiny_params


class _Links(HTMLParser):
    """Every address that a page names, and whether its tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})
    DRAWN = frozenset({"g", "path", "rect", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.DRAWN, tag
        self._look(attrs)

    def _look(self, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        self.ids |= {value or "" for name, value in attrs if name == "id"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _write(root: Path, out: Path, **keywords: object) -> str:
    return write_report(tiny_params(), root, out, **keywords).read_text(encoding="utf-8")  # type: ignore[arg-type]


def test_the_page_is_well_formed_and_refers_only_to_itself_and_its_folder(reports: Path) -> None:
    page = _Links()
    page.feed((reports / "index.html").read_text(encoding="utf-8"))
    assert page.open == []
    outside = [each for each in page.addresses if not each.startswith(("data:", "#"))]
    assert set(outside) == {"docs/benchmark/index.html"}
    assert all((reports / each).is_file() for each in outside)
    assert {each[1:] for each in page.addresses if each.startswith("#")} <= page.ids


def test_every_model_benchmark_and_protocol_is_on_the_page(scored: Path, reports: Path) -> None:
    html = (reports / "index.html").read_text(encoding="utf-8")
    for score in (scored / "artifacts" / "scores").glob("*.json"):
        scores = json.loads(score.read_text())
        assert scores["model"] in html
        assert f"{100 * scores['da2k']['accuracy']:.1f}" in html
        for result in scores["benchmarks"].values():
            assert result["protocol"] in html
            assert result["protocol_hash"] in html


def test_a_scored_model_that_is_not_here_leaves_the_pictures_to_the_others(scored: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scored, tmp_path / "project"))
    shutil.rmtree(layout.model(root, "student-vitn"))
    html = _write(root, tmp_path / "reports")
    assert "student-vitn" in html and "Depth of the same picture by teacher" in html
    assert "Depth of the same picture by student-vitn" not in html


def test_dvc_finds_scores_and_plots(scored: Path, reports: Path) -> None:
    metrics = {path.stem: json.loads(path.read_text()) for path in (reports / "metrics").iterdir()}
    assert set(metrics) == {p.stem for p in (scored / "artifacts" / "scores").glob("*.json")}
    assert set(metrics["teacher"]["da2k"]) == {"accuracy", "low", "high"}
    assert metrics["teacher"]["abs_rel"]["nyu"] > 0
    drawn = {path.stem for path in (reports / "plots" / "kinds").iterdir()}
    assert drawn == set(metrics)
    with (reports / "plots" / "kinds" / "teacher.csv").open() as file:
        assert {row["kind"] for row in csv.DictReader(file)} == {"aerial", "indoor", "outdoor"}
    curves = sorted((reports / "plots" / "training").iterdir())
    assert len(curves) == 3
    for path in curves:
        with path.open() as file:
            losses = list(csv.DictReader(file))
        assert [row["step"] for row in losses] == [str(n) for n in range(1, 41) if n != 7], "one was skipped"
        assert set(losses[0]) == {"step", "loss"}


def test_the_champion_is_compared_when_there_is_one(scored: Path, reports: Path, tmp_path: Path) -> None:
    champion = ScoreFile.read(scored / "artifacts" / "scores" / "teacher.json")
    champion = champion.model_copy(update={"model": "student-vitn"})
    html = _write(scored, tmp_path, champion=lambda model: champion)
    assert "What changed" in html
    assert "student-vitn against the champion" in html
    assert "What changed" not in (reports / "index.html").read_text(encoding="utf-8")


def test_what_was_not_scored_is_listed(project: Path, tmp_path: Path) -> None:
    folder = project / "artifacts" / "scores"
    folder.mkdir()
    scores = {
        "model": "teacher",
        "seconds": 1.0,
        "latency_ms": None,
        "megabytes": 1.0,
        "input_size": 140,
        "da2k": {
            **dict.fromkeys(("accuracy", "low", "high"), 0.5),
            "kinds": {"indoor": {"accuracy": 0.5, "low": None, "high": None, "pairs": 2}},
            "pairs": 2,
            "images": 1,
            "ties": 0,
            "data": "x",
            "problems": {"equal points": 3},
            "per_image": [],
        },
        "benchmarks": {},
    }
    (folder / "teacher.json").write_text(json.dumps(scores))
    assert "teacher, DA-2K: 3 × equal points" in _write(project, tmp_path / "reports")


def test_without_scores_the_report_says_what_to_run(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dvc repro"):
        _write(project, tmp_path)


def test_text_in_charts_is_escaped() -> None:
    drawn = str(dots([Dot("<b>&", 0.5, None, None)], "a < b"))
    assert "<b>" not in drawn
    assert "&lt;b&gt;&amp;" in drawn
    assert "$a_b$" in str(dots([Dot("$a_b$", 0.5, None, None)], "no formula"))


def test_charts_stand_beside_each_other_and_are_the_same_every_time() -> None:
    rows = [Dot("teacher", 0.5, 0.4, 0.6), Dot("baseline-row", 0.4, 0.3, 0.5, muted=True)]
    one, other = (str(dots(rows, title)) for title in ("one", "other"))
    assert one == str(dots(rows, "one"))
    names = [set(re.findall(r' id="([^"]*)"', drawn)) for drawn in (one, other)]
    assert all(names) and not names[0] & names[1]
    for outside in ("<style", "http://matplotlib", "#00000"):
        assert outside not in one


def test_a_curve_survives_what_training_writes() -> None:
    assert "var(--accent)" in str(curve([(1, 5.0), (2, math.nan), (3, 1.0)], "x", x_label="step", y_label="loss"))
    drawn = str(curve([(80, 0.652), (150, 0.664)], "x", x_label="step", y_label="accuracy", percent=True))
    ticks = re.findall(r">([^<]*)</text>", drawn)
    assert len(ticks) == len(set(ticks)) and "65.6 %" in ticks and "100" in ticks
    assert "no values" in str(curve([], "x", x_label="step", y_label="loss"))
    assert "nan" not in str(curve([(1, 2.0)], "x", x_label="step", y_label="loss", smooth=5))


def test_colours_run_from_far_to_near_and_show_missing_values_as_grey() -> None:
    picture = coloured(np.array([[0.0, 1.0, np.nan]], np.float32))
    far, near, missing = picture[0].astype(int)
    assert far[2] > far[0]
    assert near[0] > near[2]
    assert missing.tolist() == [128, 128, 128]
    assert len(np.unique(coloured(np.ones((3, 3), np.float32)).reshape(-1, 3), axis=0)) == 1


def test_marked_pairs_show_the_nearer_point_in_white() -> None:
    marked = marked_pairs(np.full((2 * SIDE, SIDE, 3), 90, np.uint8), [Pair((100, 100), (800, 300), 2)])
    assert marked.shape == (SIDE, SIDE // 2, 3)
    assert marked[50, 50].max() < 40
    assert marked[400, 150].min() > 230


def test_the_page_follows_light_and_dark_and_the_width_of_the_screen(reports: Path) -> None:
    html = (reports / "index.html").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in html
    assert '<meta name="viewport" content="width=device-width' in html
