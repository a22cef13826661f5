"""``dav2 data`` says what is there, writes only when asked to, and explains what is wrong in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest
import yaml
from typer.testing import CliRunner

from dav2.cli import build
from tests.data.builders import write_photographs, write_vkitti2

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def dav2(tmp_path, monkeypatch):
    """Runs ``dav2 data …`` in a project folder with two small data sets."""
    text = PARAMS.read_text()
    text = text.replace("path: data/vkitti2", "path: raw/vkitti2").replace("path: data/views", "path: raw/views")
    (tmp_path / "params.yaml").write_text(text)
    write_vkitti2(tmp_path / "raw/vkitti2", frames=2)
    write_photographs(tmp_path / "raw/views", 6)
    (tmp_path / "raw/views/album0/cut.jpg").write_bytes((tmp_path / "raw/views/album0/photo002.jpg").read_bytes()[:600])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    app = build("data")
    return lambda *arguments: CliRunner().invoke(app, ["data", *arguments])


def test_check_reports_what_is_there_and_what_does_not_parse_without_writing(dav2, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    sound = dav2("check", "vkitti2", "raw/vkitti2")
    assert sound.exit_code == 0 and "4 frames in 2 scenes" in sound.stdout and "310 × 94: 4" in sound.stdout
    bad = dav2("check", "image_folder", "raw/views", "--sample", "0")
    assert bad.exit_code == 1 and "cut" in bad.stderr and "1 of 7 opened frames cannot be used" in bad.stderr
    assert [p for p in sorted(tmp_path.rglob("*")) if "cache" not in str(p)] == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "vkitti3", "raw/vkitti2"], "no reader named 'vkitti3'"),
        (["check", "vkitti2", "nowhere"], "dvc pull"),
        (["check", "vkitti2", "raw/vkitti2", "--options", "{colour: red}"], "colour"),
        (["check", "vkitti2", "raw/vkitti2", "--options", "red"], "--options:1: must be a mapping"),
        (["check", "vkitti2", "raw/vkitti2", "--options", "{a: 1, a: 2}"], "key 'a' stands in line 1 too"),
        (["check", "vkitti2", "raw/vkitti2", "--options", "[" * 5000], "nested more than"),
        (["ingest", "kitty"], "no data set named 'kitty'"),
        (["ingest", "views"], "dav2 data ingest"),
        (["show", "vkitti2"], "dav2 data ingest"),
        (["stats", "vkitti2"], "dav2 data ingest"),
        (["validate", "everything"], "everything"),
    ],
)
def test_mistakes_are_explained_in_a_sentence(dav2, arguments, words):
    result = dav2(*arguments)
    assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output


def test_ingest_stats_show_and_list_work_on_what_is_there(dav2, tmp_path):
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["benchmarks"] = {"da2k": {"reader": "image_folder", "path": "raw/bench", "group": "benchmark"}}
    params["evaluate"] |= {"da2k": "da2k", "benchmarks": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "raw/bench").mkdir()
    shutil.copy(tmp_path / "raw/views/album1/photo003.png", tmp_path / "raw/bench/a.png")
    first = dav2("ingest", "da2k")
    assert first.exit_code == 0 and "1 frames" in first.stdout, first.stderr
    result = dav2("ingest", "views")
    assert result.exit_code == 0 and "5 frames" in result.stdout and "1 quarantined, 1 duplicates" in result.stdout
    assert dav2("ingest", "vkitti2").exit_code == 0
    told = dav2("stats")
    assert "vkitti2: 4 frames" in told.stdout and "depth_median" in told.stdout and "1 × album0/cut.jpg" in told.stdout
    assert dav2("show", "vkitti2", "--out", "sheet.jpg", "--count", "3").exit_code == 0
    assert cv2.imread("sheet.jpg") is not None
    assert "5 frames" in dav2("list").stdout
    assert dav2("show", "vkitti2", "--split", "test").exit_code == 2
